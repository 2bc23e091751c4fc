/** A host of the engine in this process, in a directory of its own: for QEMUs that no daemon has. */
import { mkdirSync } from "node:fs";
import type { Accelerator, HostArtifacts } from "../src/contract/machine.ts";
import { CONFIG_DEFAULTS } from "../src/engine/config.ts";
import type { Host } from "../src/engine/host.ts";
import { hostTscKHz, hostWith } from "../src/engine/probe.ts";
import { Records } from "../src/engine/records.ts";
import { Slots } from "../src/engine/slots.ts";
import { makeDirectory } from "../src/sys/paths.ts";

/** Disposing it closes its records; its QEMUs have to have ended. */
export type OwnHost = Host & Disposable;

/**
 * Opens one.
 * @param directory an empty one, traversable for QEMU's user.
 * @param name tells its control groups from others of this process.
 */
export async function openOwnHost(
  directory: string,
  artifacts: HostArtifacts,
  accelerator: Accelerator,
  name: string,
): Promise<OwnHost> {
  const runDir = `${directory}/run`;
  for (const path of [directory, runDir]) await makeDirectory(path, 0o711);
  const config = { ...CONFIG_DEFAULTS, stateDir: directory, runDir, artifacts, accelerator };
  const slots = new Slots(runDir, config.uidBase, `mayfly-${name}-${process.pid}`);
  const records = new Records(`${directory}/mayfly.db`);
  const parts = { config, slots, records, tscKHz: await hostTscKHz(records) };
  const host = hostWith(parts, { accelerator, usable: true, reason: "as the daemons" });
  mkdirSync(`${directory}/templates`, { recursive: true, mode: 0o711 });
  return {
    ...host,
    [Symbol.dispose]() {
      records[Symbol.dispose]();
      slots.close();
    },
  };
}
