/** From a description of a QEMU process to its argument vector. Pure; a golden test prints it. */
import type { Accelerator, QemuBinary, Shape } from "../contract/machine.ts";
import type { DiskFiles } from "./devices/disk.ts";
import { deviceArguments } from "./profile.ts";

/** How QEMU maps the memory file. */
export type MemoryMode =
  /** The file is the memory: a parent that becomes a template. */
  | "shared"
  /** Copy-on-write over a file opened read-only; discards are refused (QEMU 8.2 and newer). */
  | "private-read-only"
  /** Copy-on-write over a file opened read-write (older QEMU). */
  | "private";

/** What boots: absent in a clone, which takes its state from `incomingFd` and needs neither. */
export interface BootFiles {
  kernelPath: string;
  initramfsPath: string;
  commandLine: string;
}

/** Everything about one QEMU process that its arguments depend on. */
export interface QemuDescription {
  qemu: QemuBinary;
  accelerator: Accelerator;
  cpuModel: string;
  shape: Shape;
  memoryPath: string;
  memoryMode: MemoryMode;
  /** Listening unix sockets and the state socket, as the descriptor numbers that QEMU inherits. */
  qmpFd: number;
  agentFd: number;
  incomingFd?: number;
  /** An open /dev/kvm: QEMU's own uid then needs no right to it. */
  kvmFd?: number;
  boot?: BootFiles;
  /** File that takes the guest's serial console; absent: a ring of 64 KiB in QEMU (QMP ringbuf-read). */
  consolePath?: string;
  disks: DiskFiles;
}

/** Id of the console's ring buffer, for QMP `ringbuf-read`. */
export const CONSOLE_RING = "console";

/** TCG's translation cache in MiB: the default of 1 GiB only reserves addresses, but a clone never needs that much. */
export const TRANSLATION_CACHE_MIB = 64;

/** Doubles commas, as QEMU's `key=value,...` options want it (QemuOpts). */
export function escapeOption(value: string): string {
  return value.replaceAll(",", ",,");
}

function machineOption(description: QemuDescription): string {
  const options = ["microvm", "memory-backend=memory", "suppress-vmdesc=on", "pcie=off", "usb=off", "isa-serial=on"];
  // QEMU offers guest memory to the kernel's same-page merging unless told; who wants that asks for all of the process (the launcher does).
  options.push("mem-merge=off");
  // A second I/O APIC has 24 virtio-mmio buses, 40 KB each. The first one has the 8 that there are devices for.
  options.push("ioapic2=off");
  // Nothing in the guest uses the PIT (ACPI's reduced hardware has none), but the firmware leaves it running: with it an idle VM under
  // TCG wakes QEMU a hundred times a second.
  options.push("pit=off");
  // Under TCG the guest has no other clock to begin with than the RTC; under KVM it has kvmclock.
  if (description.accelerator === "kvm") options.push("pic=off", "rtc=off");
  return options.join(",");
}

function memoryObject(description: QemuDescription): string {
  const common = {
    "qom-type": "memory-backend-file",
    id: "memory",
    size: description.shape.memoryMiB * 2 ** 20,
    "mem-path": description.memoryPath,
    share: description.memoryMode === "shared",
  };
  const readOnly = description.memoryMode === "private-read-only" ? { readonly: true, rom: "off" } : {};
  return JSON.stringify({ ...common, ...readOnly });
}

function consoleArguments(description: QemuDescription): string[] {
  const chardev =
    description.consolePath === undefined
      ? `ringbuf,id=${CONSOLE_RING},size=65536`
      : `file,id=${CONSOLE_RING},path=${escapeOption(description.consolePath)}`;
  return ["-chardev", chardev, "-serial", `chardev:${CONSOLE_RING}`];
}

function acceleratorArguments({ accelerator, kvmFd }: QemuDescription): string[] {
  if (accelerator === "tcg") return ["-accel", `tcg,tb-size=${TRANSLATION_CACHE_MIB}`];
  if (kvmFd === undefined) return ["-accel", "kvm"];
  return ["-add-fd", `fd=${kvmFd},set=1`, "-accel", "kvm,device=/dev/fdset/1"];
}

/**
 * The arguments of a QEMU process, without the program itself.
 * `send-configuration=off` and `suppress-vmdesc=on` because a saved device state has neither section (QEMU migration/savevm.c).
 */
export function qemuArguments(description: QemuDescription): string[] {
  const { boot, incomingFd, qemu, shape } = description;
  return [
    ...qemu.firmwarePaths.flatMap((path) => ["-L", path]),
    ...["-M", machineOption(description)],
    ...acceleratorArguments(description),
    ...["-cpu", description.cpuModel, "-smp", String(shape.vcpus), "-m", String(shape.memoryMiB)],
    ...["-global", "migration.send-configuration=off"],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-object", memoryObject(description)],
    ...["-chardev", `socket,id=qmp,fd=${description.qmpFd},server=on,wait=off`, "-mon", "chardev=qmp,mode=control"],
    ...consoleArguments(description),
    ...deviceArguments(shape.profile ?? "full", description),
    ...(boot === undefined
      ? []
      : ["-kernel", boot.kernelPath, "-initrd", boot.initramfsPath, "-append", boot.commandLine]),
    ...(incomingFd === undefined ? [] : ["-incoming", `fd:${incomingFd}`]),
  ];
}

/** What a guest of one tenant does not need, and would pay for in each clone: other security modules, pressure accounting ... */
const LEAN = "lsm=capability audit=0 psi=0 nowatchdog cgroup_no_v1=all sysctl.vm.stat_interval=3600";

/**
 * The guest kernel's command line.
 * `tsc_early_khz`: without it the TSC calibration fails in about one boot of ten under TCG and the kernel hangs in its
 * delay loop. QEMU's TCG shows guests the host's counter, so it has to be the host's rate: with another the guest's clock runs
 * wrong by their ratio. `reboot=t panic=-1`: a panic becomes a triple fault, which ends QEMU.
 * `mitigations=off` under TCG only: the guest's mitigations are about a CPU that it does not run on.
 * @param tscKHz rate of the host's time stamp counter.
 */
export function kernelCommandLine(accelerator: Accelerator, tscKHz: number): string {
  const common = `console=ttyS0 quiet loglevel=4 reboot=t panic=-1 no_timer_check tsc=reliable ${LEAN}`;
  return accelerator === "tcg" ? `${common} tsc_early_khz=${tscKHz} mitigations=off` : common;
}
