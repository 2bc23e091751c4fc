/** Disks: root, scratch and volumes. Those that a VM does not use sit on placeholders (null-co, 1 TiB, never read), so that any clone fits its template. */
import { busOf, type Device, deviceOption } from "./device.ts";

/** Size that a guest sees of an unused disk. */
const PLACEHOLDER_BYTES = 2 ** 40;

/** Disk slots in the guest's order: /dev/vda is the root, vdb the scratch disk, vdc to vde volumes. */
export const DISK_SLOTS = ["root", "scratch", "volume0", "volume1", "volume2"] as const;
export type DiskSlot = (typeof DISK_SLOTS)[number];

/** A file that QEMU opens read-only: the root's, since read-only is negotiated when the guest boots and a slot keeps it for ever. */
export interface ReadOnlyDisk {
  /** Absolute path of a raw image. */
  path: string;
  format: "raw";
  readOnly: true;
}

/** A file that QEMU opens for writing, as all slots but the root's need it. */
export interface WritableDisk {
  /** Absolute path; the file is the QEMU process' own user's. */
  path: string;
  readOnly: false;
  format: "raw" | "qcow2";
  /**
   * qcow2 only: a raw image below it, opened read-only, that has what the overlay has not. This is also how a slot that the guest
   * may write to gets a file that must not change.
   */
  basePath?: string;
  /** The base belongs to this VM alone, and is given to its user for reading. */
  ownsBase?: boolean;
}

export type DiskSpec = ReadOnlyDisk | WritableDisk;

/** Host files for slots that are in use. */
export type DiskFiles = { root?: ReadOnlyDisk } & Partial<Record<Exclude<DiskSlot, "root">, WritableDisk>>;

/** A block node as `-blockdev` and QMP's `blockdev-add` take it. */
export type BlockNode = { driver: string; "node-name": string } & Record<string, unknown>;

/** The node that an unused slot sits on. */
export function placeholderNode(slot: DiskSlot): BlockNode {
  return {
    driver: "null-co",
    "node-name": `${slot}-none`,
    size: PLACEHOLDER_BYTES,
    "read-only": isReadOnlySlot(slot),
  };
}

/**
 * The nodes of a disk below its slot's own, bottom first; the last one is what the slot is put on. Images that several QEMUs read are not
 * locked; what is written is (QEMU's file locks), so that no second QEMU can open it by mistake.
 */
export function diskNodes(slot: DiskSlot, disk: DiskSpec): [BlockNode, ...BlockNode[]] {
  if (disk.readOnly) return [readOnlyFile(`${slot}-file`, disk.path)];
  // What is on a scratch disk goes with its VM: that it survives the host's crash is worth no wait for the host's disk.
  const cache = slot === "scratch" ? { cache: { "no-flush": true } } : {};
  const file = {
    driver: "file",
    "node-name": `${slot}-file`,
    filename: disk.path,
    "read-only": false,
    ...UNMAP,
    ...cache,
  };
  if (disk.format === "raw") return [file];
  const overlay = { driver: "qcow2", "node-name": `${slot}-overlay`, file: file["node-name"], ...UNMAP };
  if (disk.basePath === undefined) return [file, { ...overlay, backing: null }];
  const base = readOnlyFile(`${slot}-base`, disk.basePath);
  return [file, base, { ...overlay, backing: base["node-name"] }];
}

/**
 * The slot's own node, which its device holds as long as QEMU runs: raw, over the node `below`. QMP's `blockdev-reopen` with it puts the slot on
 * another file.
 */
export function slotNode(slot: DiskSlot, below: BlockNode): BlockNode {
  const readOnly = isReadOnlySlot(slot);
  const node = { driver: "raw", "node-name": slot, file: below["node-name"], "read-only": readOnly };
  return readOnly ? node : { ...node, ...UNMAP };
}

/** What the guest discards is freed on the host, if every node on the way lets it through. */
const UNMAP = { discard: "unmap" } as const;

/** Whether the guest may never write to a slot. */
export function isReadOnlySlot(slot: DiskSlot): boolean {
  return slot === "root";
}

function readOnlyFile(name: string, path: string): BlockNode {
  return { driver: "file", "node-name": name, filename: path, "read-only": true, locking: "off" };
}

/** All block nodes of one slot, bottom first. */
function blockNodes(slot: DiskSlot, disk: DiskSpec | undefined): BlockNode[] {
  const nodes = disk === undefined ? [placeholderNode(slot)] : diskNodes(slot, disk);
  const below = nodes.at(-1) ?? placeholderNode(slot);
  return [...nodes, slotNode(slot, below)];
}

/** `-blockdev` and `-device` of a slot. */
function slotArguments(slot: DiskSlot, files: DiskFiles): string[] {
  return [
    ...blockNodes(slot, files[slot]).flatMap((node) => ["-blockdev", JSON.stringify(node)]),
    ...deviceOption({
      driver: DRIVER,
      id: `disk-${slot}`,
      drive: slot,
      bus: busOf(slot),
      "num-queues": 1,
      "queue-size": 64,
      serial: slot,
      // A host without space: QEMU would stop the whole VM otherwise; so the guest's file system gets an error, and the VM can be talked to.
      werror: "report",
      rerror: "report",
    }),
  ];
}

const DRIVER = "virtio-blk-device";
const FEATURES: Readonly<Record<DiskSlot, string>> = {
  root: "containers on an image",
  scratch: "a root's changes on a disk",
  volume0: "volumes and directories",
  volume1: "volumes and directories",
  volume2: "volumes and directories",
};

/** All disk slots as devices. */
export const DISKS: readonly Device<DiskFiles>[] = DISK_SLOTS.map((slot) => ({
  name: slot,
  driver: DRIVER,
  arguments: ({ disks }) => slotArguments(slot, disks),
  guest: { modules: ["virtio_mmio", "virtio_blk"], feature: FEATURES[slot] },
  costBytes: 235_000,
}));
