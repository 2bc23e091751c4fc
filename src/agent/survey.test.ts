/** Surveys as the agent prints them, and as a hostile guest might. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { decodeChanges, decodeProcesses } from "./survey.ts";

const u16 = (value: number) => Buffer.from([value & 255, value >> 8]);
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const text = (value: string | Uint8Array) => Buffer.concat([u16(Buffer.from(value).length), Buffer.from(value)]);
const record = (...parts: Uint8Array[]) => Buffer.concat([u32(Buffer.concat(parts).length), ...parts]);
const end = (count: number) => Buffer.concat([u32(0), u32(count)]);

const process = (name: string, commandLine: string) =>
  record(
    ...[7, 1, 7, 7, 0x8803, 1000].map(u32),
    u32(-5),
    u32(3),
    ...[150, 4000, 5_000_000, 4096].map(u64),
    Buffer.from("S"),
    text(name),
    text(commandLine),
  );
const processes = (...all: Uint8Array[]) =>
  Buffer.concat([Buffer.from("MFPS"), u32(100), u64(1_700_000_000_000_000_000n), u64(60_000_000_000), ...all]);
const change = (flags: number, path: string | Uint8Array) =>
  record(Buffer.from([flags]), ...[5, 6, 7].map(u64), text(path));
const changes = (...all: Uint8Array[]) => Buffer.concat([Buffer.from("MFCH"), ...all]);

describe("a survey", () => {
  test("of processes has their names and arguments as they are", () => {
    const survey = decodeProcesses(processes(process("a) R\n1", "/bin/x\0-a\n\u001b[31m\0"), end(1)));
    expect(survey).toMatchObject({ realtimeMs: 1_700_000_000_000, uptimeMs: 60_000 });
    expect(survey.processes).toEqual([
      {
        ...{ pid: 7, ppid: 1, pgid: 7, sid: 7, terminal: 0x8803, uid: 1000, nice: -5, threads: 3 },
        ...{ cpuMs: 1500, startedMs: 40_000, virtualBytes: 5_000_000, residentBytes: 4096 },
        ...{ state: "S", name: "a) R\n1", commandLine: "/bin/x\0-a\n\u001b[31m\0" },
      },
    ]);
  });

  test("of changes has paths that are no text too", () => {
    const bytes = changes(change(0, "/new"), change(7 | 64, Buffer.from([47, 0xff, 0xfe])), end(2));
    expect(decodeChanges(bytes)).toMatchObject([
      { path: "/new", isDirectory: false, inImage: false, stamp: "5,6,7" },
      { path: "/\ufffd\ufffd", isDirectory: true, isDeleted: true, inImage: true, isCut: true, sameTime: false },
    ]);
  });

  test("that is cut off, counts wrongly or begins otherwise is refused", () => {
    const whole = processes(process("x", "y"), end(1));
    const wrong = [
      whole.subarray(0, -1),
      processes(process("x", "y")),
      processes(process("x", "y"), end(2)),
      Buffer.concat([whole, Buffer.from([0])]),
      changes(end(0)),
      processes(record(u32(1)), end(1)),
      processes(u32(1 << 30)),
      Buffer.alloc(0),
    ];
    for (const bytes of wrong) expect(() => decodeProcesses(bytes)).toThrow(MayflyError);
  });

  test("of any bytes is decoded or refused", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const [head, decode] of [
          ["MFPS", decodeProcesses],
          ["MFCH", decodeChanges],
        ] as const) {
          try {
            decode(Buffer.concat([Buffer.from(head), bytes]));
          } catch (error) {
            expect(error).toBeInstanceOf(MayflyError);
          }
        }
      }),
    );
  });
});
