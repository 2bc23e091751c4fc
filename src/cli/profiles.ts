/** What `mayfly doctor --profiles` measures and shows: the cost of a VM by device profile and QEMU. */
import { MayflyError } from "../contract/errors.ts";
import type { Accelerator } from "../contract/machine.ts";
import { loadArtifacts, type QemuArtifact } from "../setup/artifacts.ts";
import { describeQemu } from "../setup/qemu-binary.ts";
import { type QemuEntry, qemusOf } from "../setup/qemu-store.ts";
import { isRoot } from "../sys/paths.ts";
import { formatTable } from "./output.ts";
import { formatBytes } from "./sizes.ts";

/** A device of a profile. */
export interface ProfileDevice {
  name: string;
  /** QEMU's name of it. */
  driver: string;
  /** Modules of a guest's kernel that has its driver not built in. */
  modules: readonly string[];
  /** What of the agent rests on it. */
  feature: string;
  /** What a QEMU that waits for its state has to itself for it. */
  costBytes: number;
}

/** One profile with one QEMU. */
export interface ProfileCost {
  profile: string;
  devices: readonly ProfileDevice[];
  /** Name, kind and version as `mayfly qemu ls` has them. */
  qemu: Pick<QemuEntry, "name" | "kind" | "version">;
  /** Shared libraries that it loads. */
  libraries: string[];
  accelerator: Accelerator | null;
  /** Request to ready, nothing prepared; null with what follows where it could not be measured. */
  readyMs: number | null;
  uniqueMemoryBytes: number | null;
  guestUniqueMemoryBytes: number | null;
  deviceStateBytes: number | null;
  /** System calls that a filter allows; null: there is no filter. */
  systemCalls: number | null;
  /** Why it was not measured; null if it was. */
  problem: string | null;
}

/**
 * Starts VMs of each profile with each QEMU that is there, one after the other.
 * @throws MayflyError `root_required`, `setup_required`.
 */
export async function measureProfiles(stateDir: string, onStep: (step: string) => void): Promise<ProfileCost[]> {
  if (!isRoot()) throw new MayflyError("root_required", "Cannot measure profiles: starting VMs needs root");
  const artifacts = await loadArtifacts(stateDir);
  const { listProfiles, measureQemu } = await (await import("./engine.ts")).loadQemuCosts();
  const profiles = listProfiles();
  let accelerator: Accelerator | undefined;
  const costs: ProfileCost[] = [];
  for (const entry of await qemusOf(stateDir)) {
    const { name, kind, version, libraries } = entry;
    const head = { qemu: { name, kind, version }, libraries, systemCalls: null };
    try {
      if (kind === "microvm" && accelerator === "tcg") throw new Error("it runs with KVM only, which cannot be used");
      const onProfile = (profile: string) => onStep(`measuring ${name}, profile ${profile}`);
      const measured = await measureQemu(artifacts, await known(entry, artifacts.qemu), accelerator, onProfile);
      accelerator ??= measured[0]?.accelerator;
      for (const cost of measured) {
        const devices = profiles.find(({ profile }) => profile === cost.profile)?.devices ?? [];
        costs.push({ ...head, devices, ...cost, problem: null });
      }
    } catch (error) {
      const nothing = { readyMs: null, uniqueMemoryBytes: null, guestUniqueMemoryBytes: null, deviceStateBytes: null };
      const problem = error instanceof Error ? error.message : String(error);
      for (const listed of profiles) costs.push({ ...head, ...listed, accelerator: null, ...nothing, problem });
    }
  }
  return costs;
}

/** With its stand-ins, if set-up has made some. */
async function known({ path }: QemuEntry, qemus: readonly QemuArtifact[]): Promise<QemuArtifact> {
  return qemus.find((qemu) => qemu.path === path) ?? (await describeQemu(path, "built"));
}

/** The table, and what is in the profiles. */
export function formatProfiles(costs: readonly ProfileCost[]): string {
  const bytes = (value: number | null) => (value === null ? "-" : formatBytes(value));
  const rows = costs.map(({ profile, qemu, libraries, accelerator, readyMs, problem, ...cost }) => [
    ...[profile, qemu.name, accelerator ?? "-", readyMs === null ? "-" : `${readyMs.toFixed(1)} ms`],
    ...[bytes(cost.uniqueMemoryBytes), bytes(cost.guestUniqueMemoryBytes), bytes(cost.deviceStateBytes)],
    ...[String(libraries.length), cost.systemCalls === null ? "all" : String(cost.systemCalls), problem ?? ""],
  ]);
  const heading = ["PROFILE", "QEMU", "ACCELERATOR", "READY", "OWN MEMORY", "OF IT GUEST", "STATE", "LIBRARIES"];
  const profiles = new Map(costs.map(({ profile, devices }) => [profile, devices]));
  const lists = [...profiles].map(([profile, devices]) => {
    const names = devices.map(({ name, driver }) => `${name} (${driver})`);
    return `${profile}: ${names.join(", ")}\n`;
  });
  return `${formatTable([...heading, "SYSTEM CALLS", "PROBLEM"], rows)}${lists.join("")}`;
}
