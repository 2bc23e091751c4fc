/**
 * A process that maps a memory file privately, as a QEMU does, and writes to it when told: one JSON document a line on standard input, one on
 * standard output for each. Arguments: path, bytes.
 */
import { dlopen, FFIType, type Pointer, toArrayBuffer } from "bun:ffi";
import { closeSync, openSync } from "node:fs";

const { i32, i64, u64 } = FFIType;
const c = dlopen("libc.so.6", {
  mmap: { args: [u64, u64, i32, i32, i32, i64], returns: i64 },
  munmap: { args: [u64, u64], returns: i32 },
  mprotect: { args: [u64, u64, i32], returns: i32 },
  madvise: { args: [u64, u64, i32], returns: i32 },
}).symbols;

/** What the process can be told. `map` drops what it had and maps the file anew. */
export type MappingOrder =
  | { do: "map"; path: string; lengthBytes: number }
  | { do: "fill"; page: number; pages: number; byte: number }
  | { do: "random"; page: number; pages: number; seed: number }
  | { do: "rewrite"; page: number; pages: number }
  | { do: "read"; page: number; pages: number }
  | { do: "advise"; page: number; pages: number; advice: number }
  | { do: "protect"; page: number; pages: number; protection: number };

const PAGE = 4096;
let start = 0;
let lengthBytes = 0;
let memory = new Uint8Array(0);

function map(path: string, bytes: number): number {
  if (start !== 0) c.munmap(start, lengthBytes);
  const fd = openSync(path, "r");
  lengthBytes = bytes;
  start = Number(c.mmap(0, bytes, 3, 2, fd, 0));
  closeSync(fd);
  memory = new Uint8Array(toArrayBuffer(start as Pointer, 0, bytes));
  return start;
}

function obey(order: MappingOrder): number {
  if (order.do === "map") return map(order.path, order.lengthBytes);
  const [from, to] = [order.page * PAGE, (order.page + order.pages) * PAGE];
  switch (order.do) {
    case "fill":
      memory.fill(order.byte, from, to);
      return 0;
    case "random": {
      let state = order.seed >>> 0 || 1;
      const words = new Uint32Array(memory.buffer, from, (to - from) / 4);
      for (let at = 0; at < words.length; at++) {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        words[at] = state;
      }
      return 0;
    }
    case "rewrite":
      for (let at = from; at < to; at += PAGE) memory[at] = memory[at] ?? 0;
      return 0;
    case "read": {
      let sum = 0;
      for (let at = from; at < to; at += PAGE) sum += memory[at] ?? 0;
      return sum;
    }
    case "advise":
      return c.madvise(start + from, to - from, order.advice);
    case "protect":
      return c.mprotect(start + from, to - from, order.protection);
  }
}

if (import.meta.main) {
  for await (const line of console) {
    const order: MappingOrder = JSON.parse(line);
    console.log(JSON.stringify({ result: obey(order) }));
  }
}
