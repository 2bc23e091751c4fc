/**
 * The rate of the processor's time stamp counter. QEMU's software emulation shows guests the host's counter as it is
 * (`cpu_get_host_ticks` in QEMU's include/qemu/timer.h), so a guest that is told another rate has a clock that runs wrong.
 */
import { CFunction, dlopen, FFIType, type Pointer, toArrayBuffer } from "bun:ffi";
import { MayflyError } from "../contract/errors.ts";

const { i32, i64, pointer, u64 } = FFIType;
/** rdtsc; shl rdx, 32; or rax, rdx; ret */
const READ_COUNTER = Uint8Array.of(0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0xc3);
const PAGE_BYTES = 4096;
const PROT_READ_WRITE = 3;
const PROT_READ_EXEC = 5;
const MAP_PRIVATE_ANONYMOUS = 0x22;

/** How long the counter is watched, in milliseconds: a microsecond of doubt is then 10 parts in a million. */
const WATCH_MS = 100;
/** The nearest of several readings counts: one that was interrupted is late. */
const READINGS = 50;
/** Two measurements of one machine should give the same number: it is part of a template's fingerprint. */
const STEP_KHZ = 100;

/** Measures it in kHz, to the nearest 100. Takes a tenth of a second. @throws `system_call_failed`. */
export async function measureTscKHz(): Promise<number> {
  using counter = openCounter();
  read(counter);
  const first = read(counter);
  await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
  const second = read(counter);
  const perMs = Number(second.ticks - first.ticks) / ((second.atNs - first.atNs) / 1e6);
  return Math.round(perMs / STEP_KHZ) * STEP_KHZ;
}

interface Reading {
  ticks: bigint;
  atNs: number;
}

function read(counter: { ticks(): bigint }): Reading {
  let best: Reading & { doubtNs: number } = { ticks: 0n, atNs: 0, doubtNs: Number.POSITIVE_INFINITY };
  for (let reading = 0; reading < READINGS; reading++) {
    const beforeNs = Bun.nanoseconds();
    const ticks = counter.ticks();
    const afterNs = Bun.nanoseconds();
    const doubtNs = afterNs - beforeNs;
    if (doubtNs < best.doubtNs) best = { ticks, atNs: (beforeNs + afterNs) / 2, doubtNs };
  }
  return best;
}

/** Puts the instructions into a page of their own, first writable, then executable. */
function openCounter(): { ticks(): bigint } & Disposable {
  const libc = dlopen("libc.so.6", {
    mmap: { args: [u64, u64, i32, i32, i32, i64], returns: pointer },
    mprotect: { args: [pointer, u64, i32], returns: i32 },
    munmap: { args: [pointer, u64], returns: i32 },
  });
  const page = libc.symbols.mmap(0, PAGE_BYTES, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  // A failed mmap is -1, which is no number that a pointer can be.
  if (typeof page !== "number") throw refused("map a page");
  new Uint8Array(toArrayBuffer(page as Pointer, 0, READ_COUNTER.length)).set(READ_COUNTER);
  if (libc.symbols.mprotect(page, PAGE_BYTES, PROT_READ_EXEC) !== 0) throw refused("make a page executable");
  const ticks = CFunction({ ptr: page as Pointer, args: [], returns: u64 });
  return {
    ticks: () => BigInt(ticks()),
    [Symbol.dispose]() {
      ticks.close();
      libc.symbols.munmap(page, PAGE_BYTES);
      libc.close();
    },
  };
}

function refused(what: string): MayflyError {
  return new MayflyError("system_call_failed", `Cannot measure the rate of the time stamp counter: cannot ${what}`);
}
