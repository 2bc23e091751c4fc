/** Finding out whether an application is ready, and exercising it. This takes place while a template is built, where polling is fine. */

import type { HealthCheck } from "../contract/container.ts";
import { type ErrorCode, MayflyError } from "../contract/errors.ts";
import type { ReadyProbe, WarmUp } from "../contract/template.ts";
import { type Deadline, pause } from "../sys/deadline.ts";
import { type GuestConnector, httpGet } from "./http-get.ts";
import { matchesLine } from "./log-pattern.ts";
import { lastLine, type OutputTail } from "./output-tail.ts";

/** What a probe needs of a guest with an application in it. */
export interface ProbedGuest {
  connect: GuestConnector;
  /** Runs a command as `exec` does, to its end. */
  exec(command: readonly string[], deadline: Deadline): Promise<{ exitCode: number; output: string }>;
  /** What the application prints. */
  output: OutputTail;
}

/** Pauses between two tries: doubled from the first to the last, since most applications are ready soon or late. */
const PAUSE_MS = { first: 20, last: 500 } as const;
/** Longest that one try may take. */
const TRY_MS = 20_000;
/** What another try does not change. */
const LASTING: ReadonlySet<ErrorCode> = new Set(["cancelled", "command_not_found", "command_not_executable"]);
const OK = { from: 200, to: 399 } as const;

/** What came of one try, as errors tell it. */
interface Try {
  ok: boolean;
  said: string;
  /** It was cut short by the deadline of the whole. */
  isCut?: boolean;
}

/** A probe in the words of the command line. */
export function describeProbe(probe: ReadyProbe | WarmUp): string {
  if (probe.kind === "http") return `GET http://:${probe.port}${probe.path}`;
  if (probe.kind === "tcp") return `tcp://:${probe.port}`;
  if (probe.kind === "exec") return `exec:${probe.command.join(" ")}`;
  return probe.kind === "log" ? `log:${probe.pattern}` : "started";
}

/** How readiness is found out where nobody has said it: the health check, or else the first exposed port, or else the start alone. */
export function defaultProbe(health: HealthCheck | undefined, ports: readonly number[]): ReadyProbe {
  const [kind, ...words] = health?.test ?? [];
  const text = words.join(" ");
  if (kind === "CMD" && words.length > 0) return { kind: "exec", command: words };
  if (kind === "CMD-SHELL" && text !== "") return { kind: "exec", command: ["/bin/sh", "-c", text] };
  const [port] = ports;
  return port === undefined ? { kind: "started" } : { kind: "tcp", port };
}

/**
 * Asks until the application is ready.
 * @throws `application_not_ready` at the deadline, with the last answer and the end of the output.
 */
export async function untilReady(probe: ReadyProbe, guest: ProbedGuest, deadline: Deadline): Promise<void> {
  let pauseMs: number = PAUSE_MS.first;
  let last: string | undefined;
  const limitMs = Math.round(deadline.remainingMs);
  while (deadline.remainingMs > 0) {
    const { ok, said, isCut } = await attempt(probe, guest, deadline);
    if (ok) return;
    // It says less than the try before it.
    if (last === undefined || isCut !== true) last = said;
    await deadline.race(pause(Math.min(pauseMs, deadline.remainingMs)), "the application").catch(onlyIfCancelled);
    pauseMs = Math.min(2 * pauseMs, PAUSE_MS.last);
  }
  throw notReady(`it was not within ${limitMs} ms: ${last ?? "nothing was answered"}`, guest.output.text);
}

/** Exercises the application once. @throws `application_not_ready` when it does not do what it is asked. */
export async function exercise(warmUp: WarmUp, guest: ProbedGuest, deadline: Deadline): Promise<void> {
  const { ok, said } = await attempt(warmUp, guest, deadline);
  if (!ok) throw notReady(`the warm-up failed: ${said}`, guest.output.text);
}

/** The error of an application that is not ready. */
export function notReady(why: string, output: string): MayflyError {
  return new MayflyError(
    "application_not_ready",
    `The application is not ready: ${why}. Its output ends with: ${lastLine(output)}`,
    { details: { outputTail: output } },
  );
}

/** One try. Whatever the guest does is an answer; only what ends the whole is thrown. */
async function attempt(probe: ReadyProbe | WarmUp, guest: ProbedGuest, deadline: Deadline): Promise<Try> {
  const within = deadline.within(TRY_MS);
  try {
    if (probe.kind === "http") return await tryHttp(probe, guest, within);
    if (probe.kind === "tcp") return await tryTcp(probe.port, guest, within);
    if (probe.kind === "exec") return await tryExec(probe.command, guest, within);
    if (probe.kind === "started") return { ok: true, said: "started" };
  } catch (error) {
    if (!(error instanceof MayflyError) || LASTING.has(error.code)) throw error;
    const isCut = error.code === "deadline_exceeded" && within === deadline;
    return { ok: false, said: `${describeProbe(probe)}: ${error.message}`, isCut };
  }
  const matches = await matchesLine(probe.pattern, guest.output.look(), deadline).catch(onlyIfCancelled);
  return { ok: matches === true, said: `no line of the output matches ${JSON.stringify(probe.pattern)}` };
}

async function tryHttp(target: { port: number; path: string }, guest: ProbedGuest, deadline: Deadline): Promise<Try> {
  const status = await httpGet(guest.connect, target, deadline);
  const asked = `GET http://:${target.port}${target.path}`;
  if (status === undefined) return { ok: false, said: `${asked} was not answered in HTTP` };
  return { ok: status >= OK.from && status <= OK.to, said: `${asked} was answered with ${status}` };
}

async function tryTcp(port: number, guest: ProbedGuest, deadline: Deadline): Promise<Try> {
  const connection = await guest.connect(port, () => undefined, deadline);
  await connection.close().catch(() => undefined);
  return { ok: true, said: `port ${port} takes connections` };
}

async function tryExec(command: readonly string[], guest: ProbedGuest, deadline: Deadline): Promise<Try> {
  const { exitCode, output } = await guest.exec(command, deadline);
  const said = `${command.join(" ")} ended with ${exitCode}, its output with: ${lastLine(output)}`;
  return { ok: exitCode === 0, said };
}

/** Lets a deadline's passing go by: the loop sees it by itself. */
function onlyIfCancelled(error: unknown): undefined {
  if (error instanceof MayflyError && error.code === "deadline_exceeded") return undefined;
  throw error;
}
