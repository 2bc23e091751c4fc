/** Runs a host process and measures it from its start. */
import { MayflyError } from "../src/contract/errors.ts";
import { nowMs } from "../src/sys/deadline.ts";
import { toolEnvironment } from "../src/sys/tool.ts";

/** A process that has ended, measured from before it was started. */
export interface TimedProcess {
  /** To the first byte on its standard output; undefined if there was none. */
  firstOutputMs: number | undefined;
  /** To its end, its output's end included. */
  totalMs: number;
  stdout: string;
}

/** What it may be told besides the command. */
export interface TimedOptions {
  env?: Readonly<Record<string, string>>;
  signal: AbortSignal;
}

/**
 * Runs a command with an empty standard input.
 * @throws MayflyError `tool_failed` with the end of its standard error unless it ends with code 0; `cancelled`.
 */
export async function timeProcess(command: readonly string[], { env, signal }: TimedOptions): Promise<TimedProcess> {
  const startedMs = nowMs();
  const child = Bun.spawn([...command], {
    env: { ...toolEnvironment(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
    // Ctrl-C reaches it through the signal only.
    detached: true,
    signal,
  });
  const stderr = new Response(child.stderr).text();
  let firstOutputMs: number | undefined;
  let stdout = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    firstOutputMs ??= nowMs() - startedMs;
    stdout += decoder.decode(chunk, { stream: true });
  }
  const exitCode = await child.exited;
  const totalMs = nowMs() - startedMs;
  if (signal.aborted) throw new MayflyError("cancelled", `${command.join(" ")} was interrupted`);
  if (exitCode === 0) return { firstOutputMs, totalMs, stdout };
  const stderrTail = (await stderr).trimEnd().slice(-1000);
  throw new MayflyError("tool_failed", `${command.join(" ")} ended with code ${exitCode}`, {
    details: { exitCode, stderrTail },
  });
}
