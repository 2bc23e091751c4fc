/** What a VM costs by QEMU and device profile: started a few times in an engine of its own, which leaves nothing behind. */
import { join } from "node:path";
import {
  type Accelerator,
  DEVICE_PROFILES,
  type DeviceProfile,
  type HostArtifacts,
  type QemuBinary,
} from "../contract/machine.ts";
import { devicesOf } from "../machine/profile.ts";
import { Deadline } from "../sys/deadline.ts";
import { temporaryDirectory } from "../sys/paths.ts";
import { removeTree, setMode } from "../sys/store-files.ts";
import { LIMITS_MS } from "./config.ts";
import type { Engine } from "./interface.ts";
import { openEngine } from "./open.ts";

/** Clones whose start is measured; the least of their times counts, which other work on the host disturbs least. */
const CLONES = 5;

/** What was measured. */
export interface QemuCosts {
  profile: DeviceProfile;
  accelerator: Accelerator;
  /** Request to ready of the fastest of some clones with nothing prepared, in milliseconds. */
  readyMs: number;
  /** What each of them has to itself once it is ready, and of this the pages of its guest: the median, in bytes. */
  uniqueMemoryBytes: number;
  guestUniqueMemoryBytes: number;
  /** Bytes of the saved devices of a template. */
  deviceStateBytes: number;
}

/** A device of a profile, as it is listed. */
export interface ListedDevice {
  name: string;
  driver: string;
  modules: readonly string[];
  feature: string;
  costBytes: number;
}

/** All profiles with their devices. */
export function listProfiles(): { profile: DeviceProfile; devices: ListedDevice[] }[] {
  return DEVICE_PROFILES.map((profile) => ({
    profile,
    devices: devicesOf(profile).map(({ name, driver, guest, costBytes }) => ({ name, driver, ...guest, costBytes })),
  }));
}

/**
 * Builds a template of each profile with a QEMU, and measures clones of it. Takes as many boots of the guest.
 *
 * @param accelerator undefined: the probe chooses.
 * @throws what opening an engine and starting VMs throws.
 */
export async function measureQemu(
  artifacts: HostArtifacts,
  qemu: QemuBinary,
  accelerator: Accelerator | undefined,
  onProfile: (profile: DeviceProfile) => void,
): Promise<QemuCosts[]> {
  const directory = await temporaryDirectory("mayfly-costs");
  // QEMU runs as a uid of its own and opens its files by their paths.
  await setMode(directory, 0o711);
  try {
    const engine = await openEngine({
      stateDir: join(directory, "state"),
      runDir: join(directory, "run"),
      artifacts: { ...artifacts, qemu: [qemu] },
      pool: { blocked: 0, warm: 0 },
      ...(accelerator === undefined ? {} : { accelerator }),
    });
    try {
      const costs: QemuCosts[] = [];
      for (const profile of DEVICE_PROFILES) {
        onProfile(profile);
        costs.push(await measureClones(engine, profile));
      }
      return costs;
    } finally {
      await engine.close();
    }
  } finally {
    removeTree(directory);
  }
}

async function measureClones(engine: Engine, profile: DeviceProfile): Promise<QemuCosts> {
  const deadline = Deadline.after(LIMITS_MS.boot * 2);
  const { id: template, deviceStateBytes } = await engine.buildTemplate({ profile }, { deadline });
  const samples: { readyMs: number; unique: number; guest: number }[] = [];
  for (let round = 0; round < CLONES; round += 1) {
    const { vm } = await engine.createVm({ pool: false, template }, { deadline });
    const stats = await engine.statsVm(vm.id, deadline);
    const { uniqueMemoryBytes: unique, guestUniqueMemoryBytes: guest } = stats;
    samples.push({ readyMs: vm.clone.readyMs ?? Number.NaN, unique, guest });
    await engine.removeVm(vm.id, { force: true, deadline });
  }
  const middle = samples.toSorted((a, b) => a.unique - b.unique)[Math.floor(CLONES / 2)];
  return {
    profile,
    accelerator: engine.info().accelerator,
    readyMs: Math.min(...samples.map(({ readyMs }) => readyMs)),
    uniqueMemoryBytes: middle?.unique ?? 0,
    guestUniqueMemoryBytes: middle?.guest ?? 0,
    deviceStateBytes,
  };
}
