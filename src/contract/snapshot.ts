/** Checkpoints, forks and where each VM came from. Sizes are bytes, times ISO 8601 strings, durations milliseconds. */
import { z } from "zod";
import { NAME_PATTERN } from "./ids.ts";
import { VmChange } from "./inside.ts";

const name = z.string().regex(new RegExp(NAME_PATTERN), "a name has letters, digits, '_', '.', '-', at most 63");
const labels = z.record(z.string().max(255), z.string().max(4096));

/** Most VMs of one fork. */
export const MAX_CHILDREN = 256;

/** Writes a running VM's state into a snapshot. */
export const CheckpointRequest = z.strictObject({
  /** The snapshot's name; without one it goes by its id. */
  name: name.optional(),
  /** Suspends the VM: its QEMU goes, it comes back by `resume`, or by itself when a connection or an exec arrives. */
  stop: z.boolean().optional(),
});
export type CheckpointRequest = z.infer<typeof CheckpointRequest>;

/** Starts VMs from a running one, which goes on. */
export const ForkRequest = z.strictObject({
  /** How many; default 1. */
  count: z.int().min(1).max(MAX_CHILDREN).optional(),
  /** Children are named PREFIX-1 ... (one child alone: PREFIX); without it they get names as other VMs do. */
  namePrefix: name.optional(),
  labels: labels.optional(),
  /** Remove children and their logs when they end. */
  autoRemove: z.boolean().optional(),
});
export type ForkRequest = z.infer<typeof ForkRequest>;

/** From what a VM was started besides its template. */
export const Origin = z.object({
  kind: z.enum(["snapshot", "fork"]),
  /** Id of the snapshot, or of the VM that was forked. */
  id: z.string(),
  /** Its name at that time, or null. */
  name: z.string().nullable(),
});
export type Origin = z.infer<typeof Origin>;

/** How long the VM stood still while its state was taken. */
export const CaptureTimes = z.object({
  /** From the request to freeze to the acknowledged thaw, file systems included. */
  stoppedMs: z.number(),
  /** While the vCPUs stood still. */
  vcpuStoppedMs: z.number(),
  /** From the request to the last fsync; null for what was not written. */
  durableMs: z.number().nullable(),
});
export type CaptureTimes = z.infer<typeof CaptureTimes>;

/** A snapshot: device state and the pages that differ from its base, and its disks. */
export const Snapshot = z.object({
  id: z.string(),
  name: z.string().nullable(),
  createdAt: z.string(),
  /** `suspended`: it is the state of a VM that waits without a QEMU, and goes with it. */
  kind: z.enum(["checkpoint", "suspended"]),
  /** The template whose pages it shares. */
  templateId: z.string(),
  /** The VM that it was taken of, which may be gone. */
  vmId: z.string(),
  vmName: z.string(),
  /** What that VM came from; null: from the template. */
  origin: Origin.nullable(),
  /** Its image's name, null for the base guest. */
  image: z.string().nullable(),
  memoryBytes: z.int(),
  cpus: z.number(),
  /** Pages that it has beside its base's. */
  pages: z.int(),
  /** Of them those that are zero, of which no bytes are kept. */
  zeroPages: z.int(),
  /** All that it takes on the disk. */
  sizeBytes: z.int(),
  /** A template of its own, if it was promoted: its clones share all of it. */
  promotedTo: z.string().nullable(),
  times: CaptureTimes,
});
export type Snapshot = z.infer<typeof Snapshot>;

/** VMs that a fork has started, and what it cost the one that was forked. */
export const ForkResult = z.object({
  vmIds: z.array(z.string()),
  times: CaptureTimes,
  /** Bytes of pages that were copied for each child; 0 where it shares them all with the VM that was forked, until one of both writes. */
  deltaBytes: z.int(),
});
export type ForkResult = z.infer<typeof ForkResult>;

/** Where an archive of a snapshot goes or comes from: an absolute path on the daemon's host. */
export const ExportSnapshotRequest = z.strictObject({
  path: z.string().startsWith("/").max(4096),
  /** false: the base template is referred to by its checksums, and has to be there at the import. Default true. */
  base: z.boolean().optional(),
  /** false: likewise the image that its VM runs on. Default true. */
  image: z.boolean().optional(),
});
export type ExportSnapshotRequest = z.infer<typeof ExportSnapshotRequest>;
export const ImportSnapshotRequest = z.strictObject({
  path: z.string().startsWith("/").max(4096),
  name: name.optional(),
});
export type ImportSnapshotRequest = z.infer<typeof ImportSnapshotRequest>;

/** Which snapshots go: those that nothing was started from and that no VM waits for; with `all`, also named ones. */
export const PruneSnapshotsRequest = z.strictObject({ all: z.boolean().optional() });
export type PruneSnapshotsRequest = z.infer<typeof PruneSnapshotsRequest>;

/** What differs between two snapshots, or a snapshot and its base template. */
export const SnapshotDiff = z.object({
  /** `null`: the base template. */
  from: z.string().nullable(),
  to: z.string(),
  /** Pages of guest memory that differ, as ranges in ascending order; at most 10,000 ranges. */
  pages: z.int(),
  ranges: z.array(z.object({ startBytes: z.int(), lengthBytes: z.int() })),
  truncated: z.boolean(),
  /** Files that were changed, by path, if they were asked for: of the image, or since the other snapshot. */
  files: z.array(VmChange).optional(),
});
export type SnapshotDiff = z.infer<typeof SnapshotDiff>;

/** A template, snapshot or VM in the tree of who came from whom. */
export const TreeNode = z.object({
  kind: z.enum(["template", "snapshot", "vm"]),
  id: z.string(),
  name: z.string().nullable(),
  /** Id of the node it hangs under; null: a root. A parent that is gone is replaced by the nearest that is there. */
  parentId: z.string().nullable(),
  /** A VM's state; `checkpoint` or `suspended` of a snapshot, `base` or `application` of a template. */
  state: z.string(),
  createdAt: z.string(),
  /** Memory that it shares with its template, and that it has to itself; null where it has no memory. */
  sharedBytes: z.int().nullable(),
  uniqueBytes: z.int().nullable(),
});
export type TreeNode = z.infer<typeof TreeNode>;
