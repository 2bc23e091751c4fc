/** What a VM looks like from inside: its processes, and what it has changed of its image. */
import { z } from "zod";

/** A process of a VM. Ids are those of the VM, not of its container; names and arguments are whatever the process wants. */
export const VmProcess = z.object({
  pid: z.int(),
  ppid: z.int(),
  pgid: z.int(),
  sid: z.int(),
  uid: z.int(),
  /** Name of the user by the VM's /etc/passwd, or its number. */
  user: z.string(),
  /** As ps has it: R running, S sleeping, D waiting for a disk, Z ended ... */
  state: z.string(),
  /** Its terminal, e.g. `pts/0`. */
  tty: z.string().nullable(),
  nice: z.int(),
  threads: z.int(),
  /** CPU that it has used, and the time since its start, in milliseconds. */
  cpuMs: z.int(),
  elapsedMs: z.int(),
  startedAt: z.string(),
  virtualBytes: z.int(),
  residentBytes: z.int(),
  name: z.string(),
  /** Program and arguments; empty for one that has none (any more). At most 4 KiB of them. */
  command: z.array(z.string()),
});
export type VmProcess = z.infer<typeof VmProcess>;

/** A file that a container has added, changed or deleted of its image. What has been deleted in a deleted directory is not listed. */
export const VmChange = z.object({
  kind: z.enum(["added", "changed", "deleted"]),
  /** Absolute; bytes that are not UTF-8 are shown as U+FFFD. */
  path: z.string(),
});
export type VmChange = z.infer<typeof VmChange>;
