import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as wire from "./wire.ts";

const header = join(import.meta.dir, "../../guest/agent/protocol.h");

/** `#define NAME value` lines whose value is a number or a string of bytes. */
function definitions(text: string): Map<string, string> {
  return new Map(
    [...text.matchAll(/^#define[ \t]+(\w+)[ \t]+(\S.*?)[ \t]*$/gm)].map((match) => [match[1] ?? "", match[2] ?? ""]),
  );
}

describe("the agent's protocol.h", () => {
  test("has the same numbers", () => {
    expect(existsSync(header)).toBe(true);
    const defined = definitions(readFileSync(header, "utf8"));
    const number = (name: string) => Number(defined.get(name)?.split(" ")[0]);
    const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
    for (const [name, type] of Object.entries(wire.FrameType))
      expect([name, number(`TYPE_${snake(name)}`)]).toEqual([name, type]);
    const types = [...defined.keys()].filter((name) => name.startsWith("TYPE_"));
    expect(types.length).toBe(Object.keys(wire.FrameType).length);
    for (const [name, channel] of Object.entries(wire.Channel)) expect(number(`CHANNEL_${snake(name)}`)).toBe(channel);
    expect({
      version: number("PROTOCOL_VERSION"),
      magic: number("FRAME_MAGIC"),
      header: number("FRAME_HEADER_BYTES"),
      payload: number("FRAME_MAX_PAYLOAD"),
      data: number("DATA_MAX_BYTES"),
      window: number("STREAM_WINDOW_BYTES"),
      objects: number("MAX_OBJECTS"),
      objectId: number("MAX_OBJECT_ID"),
      connections: number("MAX_CONNECTIONS"),
      firstConnection: number("FIRST_CONNECTION_ID"),
      lastConnection: number("MAX_CONNECTION_ID"),
      connectionFree: number("CONNECTION_FREE_BYTES"),
      buffered: number("MAX_BUFFERED_BYTES"),
      path: number("MAX_PATH_BYTES"),
      ping: number("MAX_PING_BYTES"),
      entropy: number("IDENTITY_ENTROPY_BYTES"),
    }).toEqual({
      version: wire.PROTOCOL_VERSION,
      magic: wire.FRAME_MAGIC,
      header: wire.HEADER_BYTES,
      payload: wire.MAX_PAYLOAD,
      data: wire.MAX_DATA,
      window: wire.WINDOW,
      objects: wire.MAX_OBJECTS,
      objectId: wire.MAX_OBJECT_ID,
      connections: wire.MAX_CONNECTIONS,
      firstConnection: wire.FIRST_CONNECTION_ID,
      lastConnection: wire.MAX_CONNECTION_ID,
      connectionFree: wire.CONNECTION_FREE,
      buffered: wire.MAX_BUFFERED,
      path: wire.MAX_PATH,
      ping: wire.MAX_PING,
      entropy: wire.ENTROPY_BYTES,
    });
    const bytes = [...(defined.get("PREAMBLE") ?? "").matchAll(/\\x([0-9a-f]{2})/g)].map((match) =>
      Number.parseInt(match[1] ?? "", 16),
    );
    expect(bytes).toEqual([...wire.PREAMBLE]);
  });
});

describe("payloads", () => {
  test("numbers go there and back", () => {
    const writer = new wire.PayloadWriter().begin("test");
    const bytes = writer
      .u8("a", 255)
      .u16("b", 65535)
      .u32("c", 2 ** 32 - 1)
      .u53("d", 2 ** 53 - 1)
      .u64("e", 2n ** 64n - 1n);
    const reader = new wire.PayloadReader(bytes.string("f", "grüße").end(), "test");
    expect([reader.u8(), reader.u16(), reader.u32(), reader.u53(), reader.u64(), reader.string()]).toEqual([
      255,
      65535,
      2 ** 32 - 1,
      2 ** 53 - 1,
      2n ** 64n - 1n,
      "grüße",
    ]);
    reader.end();
  });

  test("what does not fit is an invalid argument that names it", () => {
    const writer = new wire.PayloadWriter();
    expect(() => writer.begin("run").u16("rows", 65536)).toThrow("Cannot run: rows is 65536");
    expect(() => writer.begin("run").u32("uid", -1)).toThrow("uid is -1");
    expect(() => writer.begin("run").u32("uid", 1.5)).toThrow("uid is 1.5");
    expect(() => writer.begin("run").u53("size", 2 ** 53)).toThrow("size is 9007199254740992");
    expect(() => writer.begin("run").u64("time", -1n)).toThrow("time is -1");
    expect(() => writer.begin("run").string("the name", "a\0b")).toThrow("has a NUL character");
    expect(() => writer.begin("run").string("the path", "ü".repeat(5), 9)).toThrow("has 10 bytes, at most 9");
    expect(() => writer.begin("run").raw("the id", new Uint8Array(3), 16)).toThrow("has 3 bytes, not 16");
    expect(() => {
      writer.begin("run");
      for (let i = 0; i < 3; i++) writer.string("the argument", "x".repeat(30_000));
    }).toThrow("needs more than 65536 bytes");
  });

  test("reading past the end, bytes left over, NUL in a string, and numbers beyond 2^53 are violations", () => {
    const reader = (bytes: readonly number[]) => new wire.PayloadReader(Uint8Array.from(bytes), "an answer");
    expect(() => reader([1, 2, 3]).u32()).toThrow("an answer ends after 3 bytes");
    expect(() => reader([5, 0, 65]).string()).toThrow("an answer ends after 3 bytes");
    expect(() => reader([2, 0, 65, 0]).string()).toThrow("has a NUL byte");
    expect(() => reader([1]).end()).toThrow("has 1 bytes more than expected");
    expect(() => reader([0, 0, 0, 0, 0, 0, 32, 0]).u53()).toThrow("at most 2^53-1");
    expect(() => wire.readU53(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 255), 0, "an offset")).toThrow("broke the protocol");
    expect(reader([0, 0, 0, 0, 0, 0, 31, 0]).u53()).toBe(31 * 2 ** 48);
  });
});
