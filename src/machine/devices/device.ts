/** What a device of a VM is: its arguments, what the guest needs for it, what it costs. */

/** Devices by name: the agent's port, disks by their slots, network, entropy. */
export const DEVICE_NAMES = [
  "serial",
  "network",
  "entropy",
  "root",
  "scratch",
  "volume0",
  "volume1",
  "volume2",
] as const;
export type DeviceName = (typeof DEVICE_NAMES)[number];

/** What arguments depend on, beside the device. */
export interface DeviceContext<Files> {
  /** Descriptor of the agent's listening socket. */
  agentFd: number;
  /** Files of disks that are in use. */
  disks: Files;
}

/** A device. */
export interface Device<Files> {
  name: DeviceName;
  /** QEMU's name of it. */
  driver: string;
  /** Its options, in the order in which QEMU takes them. Pure. */
  arguments: (context: DeviceContext<Files>) => string[];
  /** What the guest does with it. */
  guest: {
    /** Modules of a kernel that has its driver not built in. */
    modules: readonly string[];
    /** What of the agent rests on it. */
    feature: string;
  };
  /** What a QEMU that waits for its state has to itself for it, in bytes: Debian's 10.0.2, TCG (smaps, anonymous and page tables). */
  costBytes: number;
}

/**
 * Bus of each device. Linux finds them through ACPI from the highest to the lowest, so that the root disk is /dev/vda.
 * Their interrupts are pins 16 to 23 of the first I/O APIC. (With `ioapic2=on`, bus 0 has pin 0 of the second one, which never arrives in
 * the guest: seen with QEMU 10.0 and Linux 6.1.)
 */
const BUS: Readonly<Record<DeviceName, number>> = {
  ...{ serial: 7, root: 6, scratch: 5, volume0: 4, volume1: 3, volume2: 2, network: 1, entropy: 0 },
};

/** The bus that a device is on. */
export function busOf(device: DeviceName): string {
  return `virtio-mmio-bus.${BUS[device]}`;
}

/** `-device` with properties as JSON. */
export function deviceOption(properties: object): string[] {
  return ["-device", JSON.stringify(properties)];
}
