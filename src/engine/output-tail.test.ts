import { describe, expect, test } from "bun:test";
import { lastLine, OutputTail } from "./output-tail.ts";

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

describe("the tail of an output", () => {
  test("has the last characters of both channels, whole even when cut between bytes", () => {
    const tail = new OutputTail();
    const bytes = Buffer.from("é");
    tail.take(2, bytes.subarray(0, 1));
    tail.take(3, Buffer.from("err\n"));
    tail.take(2, bytes.subarray(1));
    expect(tail.text).toBe("err\né");
    for (let i = 0; i < 10_000; i++) tail.take(2, Buffer.from(`line ${i}\n`));
    expect(tail.text.length).toBe(4096);
    expect(lastLine(tail.text)).toBe("line 9999");
  });

  test("is looked at in whole lines, but for the last one, which comes again when it has grown", () => {
    const tail = new OutputTail(true);
    tail.take(2, Buffer.from("one\ntw"));
    tail.take(3, Buffer.from("other"));
    expect(text(tail.look())).toBe("one\ntw\nother\n");
    expect(text(tail.look())).toBe("");
    tail.take(2, Buffer.from("o\n"));
    expect(text(tail.look())).toBe("two\n");
    tail.take(3, Buffer.from(" end\n"));
    expect(text(tail.look())).toBe("other end\n");
  });

  test("keeps no more than a quarter of a megabyte unseen", () => {
    const tail = new OutputTail(true);
    for (let i = 0; i < 100; i++) tail.take(2, Buffer.alloc(10_000, 97));
    expect(tail.look().length).toBe(256 * 1024 + 1);
  });
});

test("the last line is the last one that says something", () => {
  expect([lastLine("a\nb\n\n"), lastLine("  \n"), lastLine("")]).toEqual(["b", "(nothing)", "(nothing)"]);
});
