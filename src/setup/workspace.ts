/** What the steps of one set-up share: where things go, and the artifacts found or made so far. */

import type { Artifacts } from "./artifacts.ts";
import { artifactsDirectory, readArtifacts } from "./artifacts.ts";
import { type GuestSources, guestSources } from "./guest-sources.ts";

/** State of one set-up. A step fills its part of `made`. */
export interface Workspace {
  stateDir: string;
  /** `STATE/artifacts`. */
  directory: string;
  made: Partial<Artifacts>;
  /** Of the C programs that are compiled here. */
  sources: GuestSources;
  /** Path of the static busybox of the guest. */
  busyboxPath: string | undefined;
}

/** A workspace that starts with what an earlier set-up has put in force, if anything. */
export async function openWorkspace(stateDir: string): Promise<Workspace> {
  const made: Partial<Artifacts> = await readArtifacts(stateDir).catch(() => ({}));
  const sources = await guestSources();
  return { stateDir, directory: artifactsDirectory(stateDir), made, sources, busyboxPath: undefined };
}

/** The set that has been made. @throws Error if a step has not filled its part: a mistake in the steps' order. */
export function complete(workspace: Workspace): Artifacts {
  const { qemu, kernel, initramfs, agent, launcher, rehearsal } = workspace.made;
  if (!qemu || !kernel || !initramfs || !agent || !launcher || !rehearsal) {
    throw new Error("a set-up step did not make its artifact");
  }
  return { magic: "mayfly-artifacts", version: 1, qemu, kernel, initramfs, agent, launcher, rehearsal };
}

/** Order of versions such as `6.1.0-9-cloud-amd64`: numbers by value, the rest as text. */
export function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}
