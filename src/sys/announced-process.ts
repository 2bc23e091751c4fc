/** A background process that says what became of its start, by a line on a descriptor that it was given. */
import { closeSync, openSync, statSync } from "node:fs";
import { open } from "node:fs/promises";

/** What became of the start: the line that it said, or that it ended without one and has written `tail` to its log. */
export type StartOutcome =
  | { kind: "said"; line: string }
  | { kind: "ended"; exitCode: number | null; signal: string | null; tail: string };

/** Bytes of the log that go into an error. */
const TAIL_BYTES = 4096;

/**
 * Starts a process in a session of its own, which lives on when this one ends. Its output is appended to the log. As descriptor 3
 * it gets a stream for its line.
 * @returns its pid, and a promise of the outcome, which never rejects.
 */
export async function spawnAnnounced(
  command: readonly string[],
  logPath: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<{ pid: number; outcome: Promise<StartOutcome> }> {
  const log = openSync(logPath, "a", 0o600);
  const before = statSync(logPath).size;
  try {
    const child = Bun.spawn([...command], { cwd: "/", env, stdio: ["ignore", log, log, "pipe"], detached: true });
    child.unref();
    const said = firstLine(child.stdio[3]);
    const ended = child.exited.then(
      async (): Promise<StartOutcome> => ({
        kind: "ended",
        exitCode: child.exitCode,
        signal: child.signalCode === null ? null : String(child.signalCode),
        tail: await readFrom(logPath, before),
      }),
    );
    return { pid: child.pid, outcome: said.then((line) => (line === undefined ? ended : { kind: "said", line })) };
  } finally {
    closeSync(log);
  }
}

/** The first line of a stream; `undefined` if it ends before one. */
async function firstLine(fd: number | null | undefined): Promise<string | undefined> {
  if (fd === null || fd === undefined) return undefined;
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of Bun.file(fd).stream()) {
    text += decoder.decode(chunk, { stream: true });
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  return undefined;
}

/** Text of a file from an offset on, its last {@link TAIL_BYTES} bytes. */
async function readFrom(path: string, offset: number): Promise<string> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const start = Math.max(offset, size - TAIL_BYTES);
    const buffer = Buffer.alloc(size - start);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, start);
    return buffer.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}
