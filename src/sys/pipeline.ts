/** Two host programs with this process between them, which looks at every byte before it is handed on. */

import type { FileSink } from "bun";
import { MayflyError } from "../contract/errors.ts";
import { endingWithUs, findTool, missingTool, toolEnvironment } from "./tool.ts";

/** What {@link pipeTools} does. */
export interface Pipeline {
  /** The program whose output is read. */
  source: readonly string[];
  /** The program that is given what passes; without one it is only looked at. */
  sink?: readonly string[];
  /**
   * Looks at a chunk and returns what of it to hand on; throws to refuse. `undefined`: the end, read nothing more.
   * Called with an empty chunk when the source has ended.
   */
  inspect: (chunk: Uint8Array, atEnd: boolean) => Uint8Array | undefined;
  deadlineMs: number;
  signal?: AbortSignal;
}

/** How the programs ended; their standard error's last characters. */
export interface PipelineResult {
  source: ProgramEnd;
  /** As ended well if there was none. */
  sink: ProgramEnd;
  /** What `inspect` threw; both programs were killed then. */
  refusal?: unknown;
}

/** End of one program. */
export interface ProgramEnd {
  exitCode: number | null;
  signal: string | null;
  stderrTail: string;
}

const TAIL_CHARS = 4000;

/**
 * Runs the pipeline to its end. A failing program is no exception here: the caller knows what its failure means.
 *
 * @throws MayflyError `tool_missing`, `deadline_exceeded`, `cancelled`.
 */
export async function pipeTools(pipeline: Pipeline): Promise<PipelineResult> {
  const source = start(pipeline.source, "ignore");
  const sink = pipeline.sink === undefined ? undefined : start(pipeline.sink, "pipe");
  const name = (pipeline.sink ?? pipeline.source)[0];
  let stopped: MayflyError | undefined;
  const stop = (code: "deadline_exceeded" | "cancelled", message: string) => {
    stopped ??= new MayflyError(code, message);
    kill(source);
    kill(sink);
  };
  const timer = setTimeout(
    () => stop("deadline_exceeded", `${name} did not end within ${pipeline.deadlineMs} ms`),
    pipeline.deadlineMs,
  );
  const onAbort = () => stop("cancelled", `${name} was interrupted`);
  if (pipeline.signal?.aborted) onAbort();
  pipeline.signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const { refusal, sourceEnded } = await move(source, sink, pipeline);
    if (refusal !== undefined) kill(sink);
    if (!sourceEnded) kill(source);
    const [sourceEnd, sinkEnd] = await Promise.all([endOf(source), endOf(sink)]);
    if (stopped !== undefined) throw stopped;
    return { source: sourceEnd, sink: sinkEnd, ...(refusal === undefined ? {} : { refusal: refusal.reason }) };
  } finally {
    clearTimeout(timer);
    pipeline.signal?.removeEventListener("abort", onAbort);
    kill(source);
    kill(sink);
  }
}

type Program = ReturnType<typeof start>;

function start(command: readonly string[], stdin: "ignore" | "pipe") {
  const found = findTool(command[0] ?? "");
  if (found === undefined) throw missingTool(command[0] ?? "");
  const child = Bun.spawn(endingWithUs([found, ...command.slice(1)]), {
    env: toolEnvironment(),
    stdin,
    stdout: stdin === "ignore" ? "pipe" : "ignore",
    stderr: "pipe",
    detached: true,
  });
  return { child, stderr: tailOf(child.stderr) };
}

interface Moved {
  /** Whether everything that the source had was read. */
  sourceEnded: boolean;
  refusal?: { reason: unknown };
}

/** Moves bytes until the source ends, the inspection says so, or the sink goes away. */
async function move(source: Program, sink: Program | undefined, pipeline: Pipeline): Promise<Moved> {
  const input = sink?.child.stdin;
  const output = source.child.stdout;
  if (typeof input === "number" || !(output instanceof ReadableStream)) throw new Error("no pipes");
  const sinkGone = sink?.child.exited.then(() => "gone" as const) ?? new Promise<"gone">(() => undefined);
  const reader = output.getReader();
  let sourceEnded = false;
  try {
    while (!sourceEnded) {
      const { done, value } = await reader.read();
      sourceEnded = done;
      const passed = pipeline.inspect(value ?? new Uint8Array(0), done);
      if (passed === undefined) break;
      if (passed.length === 0 || input === undefined || input === null) continue;
      if (!(await handOn(passed, input, sinkGone))) break;
    }
    return { sourceEnded };
  } catch (reason) {
    return { sourceEnded, refusal: { reason } };
  } finally {
    await reader.cancel().catch(() => undefined);
    await Promise.resolve(input?.end()).catch(() => undefined);
  }
}

/** Writes to the sink, as fast as it takes it. False: it has gone, or closed its input. */
async function handOn(bytes: Uint8Array, input: FileSink, sinkGone: Promise<"gone">): Promise<boolean> {
  const written = Promise.resolve(input.write(bytes))
    .then(() => input.flush())
    .then(() => "written" as const)
    .catch((error: unknown) => {
      if (isBrokenPipe(error)) return "gone" as const;
      throw error;
    });
  return (await Promise.race([written, sinkGone])) === "written";
}

function isBrokenPipe(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EPIPE";
}

async function endOf(program: Program | undefined): Promise<ProgramEnd> {
  if (program === undefined) return { exitCode: 0, signal: null, stderrTail: "" };
  await program.child.exited;
  return {
    exitCode: program.child.exitCode,
    signal: program.child.signalCode === null ? null : String(program.child.signalCode),
    stderrTail: (await program.stderr).trimEnd(),
  };
}

async function tailOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let tail = "";
  for await (const chunk of stream) tail = (tail + decoder.decode(chunk, { stream: true })).slice(-TAIL_CHARS);
  return tail;
}

function kill(program: Program | undefined): void {
  if (program === undefined) return;
  if (program.child.exitCode !== null || program.child.signalCode !== null) return;
  try {
    process.kill(-program.child.pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}
