/** The machine that an engine starts VMs on: its QEMU, accelerator and limits, and what a template must match. */
import type { Accelerator, Fingerprint, QemuBinary, Shape } from "../contract/machine.ts";
import { kernelCommandLine, type MemoryMode } from "../machine/arguments.ts";
import { profileName } from "../machine/profile.ts";
import { hostCpuIdentity } from "../sys/host.ts";
import type { EngineConfig } from "./config.ts";
import { planQemu, type QemuPlan } from "./plan.ts";
import type { Records } from "./records.ts";
import type { Slot, Slots } from "./slots.ts";

/** What every VM of an engine has in common. */
export interface Host {
  config: EngineConfig;
  slots: Slots;
  records: Records;
  accelerator: Accelerator;
  /** Why this accelerator, as doctor says it. */
  acceleratorReason: string;
  qemu: QemuBinary;
  cpuModel: string;
  /** Rate of the host's time stamp counter, which guests see under TCG. */
  tscKHz: number;
}

/** What is known of a host before its accelerator. */
export type HostParts = Pick<Host, "config" | "slots" | "records" | "tscKHz">;

/**
 * The host's own under KVM. Under TCG all that QEMU has, but for "fast" string instructions: the kernel would prefer them, and
 * QEMU carries them out byte by byte (output of a guest is nearly twice as fast without).
 */
export function cpuModelFor(accelerator: Accelerator): string {
  return accelerator === "kvm" ? "host" : "max,-erms,-fsrm";
}

/** The first, but a lean one aside: with KVM Debian's KVM-only microvm program is preferred, which starts in a quarter of the time. */
export function chooseQemu(binaries: readonly QemuBinary[], accelerator: Accelerator): QemuBinary | undefined {
  if (binaries[0]?.kind === "lean") return binaries[0];
  const microvm = accelerator === "kvm" ? binaries.find((qemu) => qemu.kind === "microvm") : undefined;
  return microvm ?? binaries.find((qemu) => qemu.kind !== "microvm");
}

/** How a clone maps its template's memory: read-only from QEMU 8.2 on, the first that refuses to discard then. */
export function cloneMemoryMode(qemu: QemuBinary): MemoryMode {
  const [major = 0, minor = 0] = qemu.version.split(".").map(Number);
  return major > 8 || (major === 8 && minor >= 2) ? "private-read-only" : "private";
}

/** The fingerprint of a template that fits this host in this shape. */
export function fingerprintFor(host: Host, shape: Shape): Fingerprint {
  const { artifacts } = host.config;
  return {
    qemuVersion: host.qemu.version,
    qemuBinary: `${host.qemu.path} ${host.qemu.sizeBytes} ${host.qemu.mtimeMs}`,
    accelerator: host.accelerator,
    cpuModel: host.cpuModel,
    hostCpu: host.accelerator === "kvm" ? hostCpuIdentity() : "",
    machineProfile: profileName(shape.profile ?? "full"),
    memoryMiB: shape.memoryMiB,
    vcpus: shape.vcpus,
    kernelSha256: artifacts.kernel.sha256,
    initramfsSha256: artifacts.initramfs.sha256,
    kernelCommandLine: kernelCommandLine(host.accelerator, host.tscKHz),
  };
}

/** Group of the memory files of the default tenant. */
export function tenantGid(host: Host): number {
  return host.config.uidBase;
}

/** The plan of a QEMU on this host in a slot. */
export function planFor(
  host: Host,
  slot: Slot,
  parts: Pick<
    Parameters<typeof planQemu>[0],
    "shape" | "memoryPath" | "memoryMode" | "disks" | "boot" | "consolePath" | "merge"
  >,
): QemuPlan {
  return planQemu({
    artifacts: host.config.artifacts,
    qemu: host.qemu,
    accelerator: host.accelerator,
    cpuModel: host.cpuModel,
    uid: slot.uid,
    gid: tenantGid(host),
    procsFiles: slot.cgroup.procsFiles,
    ...parts,
  });
}
