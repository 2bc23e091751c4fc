/** What a VM costs with a QEMU and a device profile: started a few times in an engine of its own, which leaves nothing behind. */
import { join } from "node:path";
import type { Accelerator, HostArtifacts, QemuBinary } from "../contract/machine.ts";
import { diskArguments, fixedDeviceArguments, PROFILE } from "../machine/profile.ts";
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
  accelerator: Accelerator;
  /** Request to ready of the fastest of some clones with nothing prepared, in milliseconds. */
  readyMs: number;
  /** What each of them has to itself once it is ready, and of this the pages of its guest: the median, in bytes. */
  uniqueMemoryBytes: number;
  guestUniqueMemoryBytes: number;
  /** Bytes of the saved devices of a template. */
  deviceStateBytes: number;
}

/** Name of the device profile that VMs have, and the devices in it with their numbers. */
export function deviceProfile(): { name: string; devices: Record<string, number> } {
  const words = [...fixedDeviceArguments(0), ...diskArguments({})];
  const devices: Record<string, number> = {};
  for (const [index, word] of words.entries()) {
    const driver = words[index - 1] === "-device" ? /"driver":"([^"]+)"/.exec(word)?.[1] : undefined;
    if (driver !== undefined) devices[driver] = (devices[driver] ?? 0) + 1;
  }
  return { name: PROFILE, devices };
}

/**
 * Builds a template with a QEMU, and measures clones of it. Takes a boot of the guest.
 *
 * @param accelerator undefined: the probe chooses.
 * @throws what opening an engine and starting VMs throws.
 */
export async function measureQemu(
  artifacts: HostArtifacts,
  qemu: QemuBinary,
  accelerator: Accelerator | undefined,
): Promise<QemuCosts> {
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
      return await measureClones(engine);
    } finally {
      await engine.close();
    }
  } finally {
    removeTree(directory);
  }
}

async function measureClones(engine: Engine): Promise<QemuCosts> {
  const deadline = Deadline.after(LIMITS_MS.boot * 2);
  const { deviceStateBytes } = await engine.buildTemplate({}, { deadline });
  const samples: { readyMs: number; unique: number; guest: number }[] = [];
  for (let round = 0; round < CLONES; round += 1) {
    const { vm } = await engine.createVm({ pool: false }, { deadline });
    const stats = await engine.statsVm(vm.id, deadline);
    const { uniqueMemoryBytes: unique, guestUniqueMemoryBytes: guest } = stats;
    samples.push({ readyMs: vm.clone.readyMs ?? Number.NaN, unique, guest });
    await engine.removeVm(vm.id, { force: true, deadline });
  }
  const middle = samples.toSorted((a, b) => a.unique - b.unique)[Math.floor(CLONES / 2)];
  return {
    accelerator: engine.info().accelerator,
    readyMs: Math.min(...samples.map(({ readyMs }) => readyMs)),
    uniqueMemoryBytes: middle?.unique ?? 0,
    guestUniqueMemoryBytes: middle?.guest ?? 0,
    deviceStateBytes,
  };
}
