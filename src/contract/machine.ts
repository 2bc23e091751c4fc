/** Words about machines that templates, plans and reports share. */

/** How QEMU runs guest code. */
export type Accelerator = "kvm" | "tcg";

/** Device profiles, the smallest first: the agent's channel alone; with a root disk and one for its changes; with a network card; all there are. */
export const DEVICE_PROFILES = ["exec", "disk", "net", "full"] as const;
export type DeviceProfile = (typeof DEVICE_PROFILES)[number];

/** A VM as templates come in: memory in MiB, number of vCPUs, devices (all of them unless told). */
export interface Shape {
  memoryMiB: number;
  vcpus: number;
  profile?: DeviceProfile;
}

/**
 * Memory sizes of templates in MiB; a request is rounded up to one of them and limited inside by a cgroup.
 * 2052 stands for 2 GiB: with exactly 2048 Debian's cloud kernel 6.1 hangs at boot on the microvm machine (2044 and 2052 boot).
 */
export const SHAPE_MEMORY_MIB: readonly number[] = [96, 128, 256, 512, 1024, 2052, 4096, 8192];

/** vCPU numbers of templates. */
export const SHAPE_VCPUS: readonly number[] = [1, 2, 4, 8];

/** A QEMU found on this host. */
export interface QemuBinary {
  /** Absolute path of the executable. */
  path: string;
  /** e.g. `10.0.2`. */
  version: string;
  /** Directories with its firmware, for `-L`. Empty: it finds its own. */
  firmwarePaths: readonly string[];
  /** `full`: Debian's; `microvm`: Debian's KVM-only one; `lean`: built by us. */
  kind: "full" | "microvm" | "lean";
  /** Size and modification time of the file: another file there is another QEMU. */
  sizeBytes: number;
  mtimeMs: number;
  /** Directory to put into LD_LIBRARY_PATH, if any. */
  libraryPath?: string;
}

/** What set-up has put on this host; all paths are absolute. */
export interface HostArtifacts {
  /** The first is the one to use. */
  qemu: readonly QemuBinary[];
  kernel: { path: string; version: string; sha256: string };
  initramfs: { path: string; sha256: string };
  agent: { buildId: string };
  launcher: { path: string };
  /** Root file system (erofs) in which warm clones rehearse a container. */
  rehearsal: { path: string };
}

/** All that must be equal between a template and the QEMU that loads it. */
export interface Fingerprint {
  qemuVersion: string;
  /** Path, size and time of the executable. */
  qemuBinary: string;
  accelerator: Accelerator;
  cpuModel: string;
  /** Host CPU with KVM and `host` (model name and flags, hashed); empty under TCG. */
  hostCpu: string;
  machineProfile: string;
  memoryMiB: number;
  vcpus: number;
  kernelSha256: string;
  initramfsSha256: string;
  kernelCommandLine: string;
}
