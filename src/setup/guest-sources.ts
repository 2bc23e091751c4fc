/**
 * The sources of Mayfly's C programs: as they lie beside the program, or, in a single-file executable, as they were when it was
 * built. The list of those (`guest-sources.gen.ts`) is written by `tests/architecture/generate-guest-sources.ts`.
 */

import { readSources } from "../sys/checkout.ts";

/** Files by name; a Makefile among them. */
export type Sources = Readonly<Record<string, string>>;

/** Sources of both programs. */
export interface GuestSources {
  agent: Sources;
  launcher: Sources;
}

/** Reads the sources. Takes a few milliseconds. */
export async function guestSources(): Promise<GuestSources> {
  const agent = readSources("guest/agent");
  const launcher = readSources("launcher");
  return agent === undefined || launcher === undefined ? embeddedSources() : { agent, launcher };
}

/** The sources that a single-file executable carries. */
export async function embeddedSources(): Promise<GuestSources> {
  const { AGENT, LAUNCHER } = await import("./guest-sources.gen.ts");
  return { agent: AGENT, launcher: LAUNCHER };
}
