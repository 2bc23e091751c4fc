/** A crowd: many idle instances of one subject, in one control group with all that keeps them. */
import type { Subject } from "../samples.ts";
import type { CrowdGroup } from "./group.ts";

/** How instances of a subject are started, asked and removed. Disposing what it was opened with leaves nothing. */
export interface Crowd {
  group: CrowdGroup;
  /** Process that looks after all instances; undefined: there is none. */
  enginePid: number | undefined;
  /** Starts one; it runs when this resolves. @returns what the others take. */
  start(signal: AbortSignal): Promise<string>;
  /** Brings one to rest where its engine does not do that by itself. */
  rest?(id: string, signal: AbortSignal): Promise<void>;
  /** Runs `echo` in one, and takes its output. @throws when it does not give it. */
  answer(id: string, signal: AbortSignal): Promise<void>;
  remove(id: string): Promise<void>;
  /** Resolves when idle instances have become as small as they get; without it, they are left alone for some seconds. */
  settle?(signal: AbortSignal): Promise<void>;
}

/** A subject that can be measured here. */
export interface CrowdKind {
  subject: Subject;
  /** Its engine's version, and how its command line differs from the plain one, if it does. */
  facts(): { version: string; note: string | null } | undefined;
  open(resources: AsyncDisposableStack, signal: AbortSignal): Promise<Crowd>;
}

/** What `echo` gives back. */
export const WORD = "hi";
