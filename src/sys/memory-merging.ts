/** Merging of equal memory by the kernel (KSM, Linux Documentation/admin-guide/mm/ksm.rst): whether it can, and whether it does. */
import { dlopen, FFIType } from "bun:ffi";
import { readFileSync } from "node:fs";
import { MayflyError } from "../contract/errors.ts";

const { i32, u64 } = FFIType;
const c = dlopen("libc.so.6", { prctl: { args: [i32, u64, u64, u64, u64], returns: i32 } }).symbols;

/** PR_GET_MEMORY_MERGE, Linux 6.4; EINVAL before, and without CONFIG_KSM. */
const GET_MEMORY_MERGE = 68;
const RUN = "/sys/kernel/mm/ksm/run";

/** `unsupported`: processes cannot ask for it. `off`: they can, but nothing comes of it until root turns it on. */
export type Merging = "unsupported" | "off" | "on";

/** What this kernel does for processes that ask for it. */
export function merging(): Merging {
  if (c.prctl(GET_MEMORY_MERGE, 0, 0, 0, 0) < 0) return "unsupported";
  try {
    return readFileSync(RUN, "latin1").trim() === "1" ? "on" : "off";
  } catch {
    return "unsupported";
  }
}

/** @throws `merge_unsupported` where processes cannot ask for it. One that is off is no error: it may be turned on later. */
export function requireMerging(): void {
  if (merging() !== "unsupported") return;
  throw new MayflyError(
    "merge_unsupported",
    "Cannot merge the memory of a VM with that of others: this kernel has no KSM for processes that ask for it (Linux 6.4 or newer with CONFIG_KSM); start it without merge",
  );
}
