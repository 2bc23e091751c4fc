/**
 * The one device profile: microvm with eight virtio-mmio slots, in a fixed order, so that any clone fits its template.
 * Disks that a clone does not use sit on placeholders (null-co, 1 TiB, never read).
 */

/** Name of the profile in fingerprints; changes whenever a device, its order or a machine option does. */
export const PROFILE = "microvm-8slot-1";

/** Name of the agent's virtio-serial port, as /sys/class/virtio-ports shows it. */
export const AGENT_PORT = "mayfly.agent";

/** Size that a guest sees of an unused disk. */
const PLACEHOLDER_BYTES = 2 ** 40;

/** Disk slots in the guest's order: /dev/vda is the root, vdb the scratch disk, vdc to vde volumes. */
export const DISK_SLOTS = ["root", "scratch", "volume0", "volume1", "volume2"] as const;
export type DiskSlot = (typeof DISK_SLOTS)[number];

/** Read-only is negotiated when the guest boots: a slot keeps it for ever. */
const READ_ONLY: Readonly<Record<DiskSlot, boolean>> = {
  root: true,
  scratch: false,
  volume0: false,
  volume1: false,
  volume2: false,
};

/** Host files for slots that are in use: raw images. */
export type DiskFiles = Partial<Record<DiskSlot, string>>;

/** The block nodes of one slot, bottom first, as `-blockdev` JSON. */
function blockNodes(slot: DiskSlot, file: string | undefined): object[] {
  const readOnly = READ_ONLY[slot];
  const bottom =
    file === undefined
      ? {
          driver: "null-co",
          "node-name": `${slot}-file`,
          size: PLACEHOLDER_BYTES,
          "read-only": readOnly,
        }
      : {
          driver: "file",
          "node-name": `${slot}-file`,
          filename: file,
          "read-only": readOnly,
          locking: "off",
        };
  return [
    bottom,
    {
      driver: "raw",
      "node-name": slot,
      file: `${slot}-file`,
      "read-only": readOnly,
    },
  ];
}

/**
 * Bus of each device. Linux finds them through ACPI from the highest to the lowest, so that the root disk is /dev/vda.
 * Bus 0 is left out: its interrupt, pin 0 of an I/O APIC, never arrives in the guest (seen with QEMU 10.0 and Linux 6.1).
 */
const BUS = { serial: 8, root: 7, scratch: 6, volume0: 5, volume1: 4, volume2: 3, network: 2, entropy: 1 } as const;

function busOf(device: keyof typeof BUS): string {
  return `virtio-mmio-bus.${BUS[device]}`;
}

/** `-blockdev` and `-device` arguments for all disk slots, in slot order. */
export function diskArguments(files: DiskFiles): string[] {
  return DISK_SLOTS.flatMap((slot) => [
    ...blockNodes(slot, files[slot]).flatMap((node) => ["-blockdev", JSON.stringify(node)]),
    "-device",
    JSON.stringify({
      driver: "virtio-blk-device",
      id: `disk-${slot}`,
      drive: slot,
      bus: busOf(slot),
      "num-queues": 1,
      "queue-size": 64,
      serial: slot,
    }),
  ]);
}

/** The devices that are not disks: agent port, network, entropy. */
export function fixedDeviceArguments(agentFd: number): string[] {
  const device = (properties: object) => ["-device", JSON.stringify(properties)];
  return [
    ...device({
      driver: "virtio-serial-device",
      id: "serial",
      max_ports: 2,
      bus: busOf("serial"),
    }),
    "-chardev",
    `socket,id=agent,fd=${agentFd},server=on,wait=off`,
    ...device({
      driver: "virtserialport",
      chardev: "agent",
      name: AGENT_PORT,
      bus: "serial.0",
      nr: 1,
    }),
    "-netdev",
    JSON.stringify({ type: "hubport", id: "net", hubid: 0 }),
    ...device({
      driver: "virtio-net-device",
      id: "nic",
      netdev: "net",
      bus: busOf("network"),
    }),
    "-object",
    JSON.stringify({ "qom-type": "rng-builtin", id: "entropy" }),
    ...device({
      driver: "virtio-rng-device",
      id: "rng",
      rng: "entropy",
      bus: busOf("entropy"),
    }),
  ];
}
