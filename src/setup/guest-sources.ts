/** The sources of Mayfly's C programs, as they are in the checkout, or as they were when the executable was bundled. */

import { embedSources } from "../sys/embed.ts" with { type: "macro" };

/** Files by name; a Makefile among them. */
export type Sources = Readonly<Record<string, string>>;

/** The guest agent's. */
export const AGENT_SOURCES: Sources = embedSources("guest/agent");

/** The launcher's. */
export const LAUNCHER_SOURCES: Sources = embedSources("launcher");

/** Names of the kernel modules that the guest loads, one a line; see `parseModuleList`. */
export const MODULES_LIST: string = AGENT_SOURCES["modules.list"] ?? "";
