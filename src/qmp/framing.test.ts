import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { LineSplitter, MAX_MESSAGE_BYTES, parseMessage } from "./framing.ts";

const code = (work: () => unknown): string => {
  try {
    work();
    return "none";
  } catch (error) {
    return error instanceof MayflyError ? error.code : String(error);
  }
};

describe("a QMP message", () => {
  test("is a greeting, a return, an error or an event", () => {
    const greeting = '{"QMP":{"version":{"qemu":{"micro":2,"minor":0,"major":10},"package":"x"},"capabilities":[]}}';
    expect(parseMessage(greeting)).toEqual({ type: "greeting", version: "10.0.2" });
    expect(parseMessage('{"QMP":{}}')).toEqual({ type: "greeting", version: "unknown" });
    expect(parseMessage('{"return":{"a":1},"id":7}')).toEqual({ type: "return", id: 7, value: { a: 1 } });
    expect(parseMessage('{"return":null}')).toEqual({ type: "return", id: undefined, value: null });
    expect(parseMessage('{"error":{"class":"GenericError","desc":"no"},"id":1}')).toEqual({
      type: "error",
      id: 1,
      class: "GenericError",
      description: "no",
    });
    expect(parseMessage('{"event":"STOP","timestamp":{"seconds":5,"microseconds":1}}')).toEqual({
      type: "event",
      name: "STOP",
      data: {},
      seconds: 5,
    });
    expect(parseMessage('{"event":"RESET","data":{"guest":true}}')).toMatchObject({
      data: { guest: true },
      seconds: 0,
    });
  });

  test("that is anything else is a violation", () => {
    for (const line of ["", "x", "null", "[]", "3", '"a"', "{}", '{"id":1}', '{"error":"text"}', '{"event":5}', "{"]) {
      expect(`${line}: ${code(() => parseMessage(line))}`).toBe(`${line}: qmp_protocol_violation`);
    }
  });

  test("whatever the bytes are gives a message or a violation", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (line) => {
        expect(["none", "qmp_protocol_violation"]).toContain(code(() => parseMessage(line)));
      }),
    );
  });
});

describe("lines", () => {
  const cut = (bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] => {
    const chunks: Uint8Array[] = [];
    let at = 0;
    for (let index = 0; at < bytes.length; index++) {
      const size = Math.max(1, sizes[index % sizes.length] ?? 1);
      chunks.push(bytes.slice(at, at + size));
      at += size;
    }
    return chunks;
  };

  test("do not depend on how the stream was cut", () => {
    const line = fc
      .string({ unit: "grapheme", minLength: 1 })
      .filter((text) => !/[\n]/.test(text) && text.trim() !== "");
    fc.assert(
      fc.property(fc.array(line), fc.array(fc.nat({ max: 40 }), { minLength: 1 }), (lines, sizes) => {
        const expected = lines.map((text) => text.trimEnd());
        const bytes = Buffer.from(lines.map((text) => `${text}\r\n`).join(""));
        const splitter = new LineSplitter();
        expect(cut(bytes, sizes).flatMap((chunk) => splitter.push(chunk))).toEqual(expected);
      }),
    );
  });

  test("keep what a chunk holds, though its bytes change after the call", () => {
    const splitter = new LineSplitter();
    const chunk = Buffer.from('{"return"');
    expect(splitter.push(chunk)).toEqual([]);
    chunk.fill(0x58);
    expect(splitter.push(Buffer.from(":1}\n"))).toEqual(['{"return":1}']);
  });

  test("that are empty are passed over", () => {
    expect(new LineSplitter().push(Buffer.from("\r\n\n  \na\n"))).toEqual(["a"]);
  });

  test("that are too long are a violation, before they have ended", () => {
    const splitter = new LineSplitter();
    const chunk = Buffer.alloc(MAX_MESSAGE_BYTES / 4, 0x41);
    for (let index = 0; index < 4; index++) expect(splitter.push(chunk)).toEqual([]);
    expect(code(() => splitter.push(Buffer.from("A")))).toBe("qmp_protocol_violation");
  });
});
