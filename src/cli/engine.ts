/** The one place where the command line knows the engine: for the daemon, and for doctor where no daemon runs. */
import type { DaemonOptions } from "../daemon/config.ts";
import type { Engine } from "../engine/interface.ts";
import type { AcceleratorProbe } from "../engine/probe.ts";

/** Opens the engine over what set-up has left. @throws MayflyError `setup_required`, and what opening throws. */
export async function openLocalEngine(options: DaemonOptions): Promise<Engine> {
  const { stateDir, runDir, pool, accelerator, overcommit, profiles } = options;
  const [{ openEngine }, { currentPath, loadArtifacts }, { watchFile }] = await Promise.all([
    import("../engine/open.ts"),
    import("../setup/artifacts.ts"),
    import("../sys/watched-file.ts"),
  ]);
  const load = () => loadArtifacts(stateDir);
  return openEngine({
    stateDir,
    runDir,
    artifacts: await load(),
    newArtifacts: { watch: (onChange) => watchFile(currentPath(stateDir), onChange), load },
    ...(pool === undefined ? {} : { pool }),
    ...(accelerator === undefined ? {} : { accelerator }),
    ...(overcommit === undefined ? {} : { overcommit }),
    ...(profiles === undefined ? {} : { profiles }),
  });
}

/** Boots a guest under each accelerator. @throws MayflyError `setup_required`, `qemu_not_found`. */
export async function probeLocalAccelerators(stateDir: string, runDir: string): Promise<AcceleratorProbe[]> {
  const [{ probeAccelerators }, { CONFIG_DEFAULTS }, { loadArtifacts }] = await Promise.all([
    import("../engine/probe.ts"),
    import("../engine/config.ts"),
    import("../setup/artifacts.ts"),
  ]);
  return probeAccelerators({ ...CONFIG_DEFAULTS, stateDir, runDir, artifacts: await loadArtifacts(stateDir) });
}

/** What measures the cost of VMs by QEMU. */
export async function loadQemuCosts(): Promise<typeof import("../engine/qemu-costs.ts")> {
  return import("../engine/qemu-costs.ts");
}
