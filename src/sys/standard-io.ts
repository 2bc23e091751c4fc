/** Standard input and output of a command: bytes in and out with back-pressure, and as little start-up time as possible. */
import { keepDescriptorFlags } from "./terminal.ts";

/** Nobody reads the output any more (EPIPE). */
export class BrokenPipe extends Error {
  override readonly name = "BrokenPipe";

  constructor(readonly fd: number) {
    super(`nobody reads ${fd === 1 ? "standard output" : "standard error"} any more`);
  }
}

/** Takes output in order. */
export interface OutputWriter {
  /**
   * Writes a chunk, which is copied if it cannot be written at once.
   * @returns `undefined` when it is written, otherwise a promise of that; the next write waits for it.
   * @throws BrokenPipe, also by rejection; other failures (full disk) as the system's.
   */
  write(bytes: Uint8Array): Promise<void> | undefined;
}

const writers = new Map<1 | 2, OutputWriter>();

/** The writer of standard output (1) or standard error (2). */
export function standardOutput(fd: 1 | 2): OutputWriter {
  const known = writers.get(fd);
  if (known !== undefined) return known;
  const writer = openWriter(fd);
  writers.set(fd, writer);
  return writer;
}

function openWriter(fd: 1 | 2): OutputWriter {
  process.on("exit", keepDescriptorFlags(fd));
  const sink = (fd === 1 ? Bun.stdout : Bun.stderr).writer({ highWaterMark: 1 });
  const fail = (error: unknown): never => {
    throw isBrokenPipe(error) ? new BrokenPipe(fd) : error;
  };
  return {
    write(bytes) {
      try {
        const written = sink.write(bytes);
        const flushed = sink.flush();
        if (!(written instanceof Promise) && !(flushed instanceof Promise)) return undefined;
        return Promise.all([written, flushed]).then(() => undefined, fail);
      } catch (error) {
        return fail(error);
      }
    },
  };
}

function isBrokenPipe(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EPIPE";
}

/** Writes text to standard output. @throws BrokenPipe. */
export async function print(text: string): Promise<void> {
  await standardOutput(1).write(new TextEncoder().encode(text));
}

/** Writes text to standard error; failures are ignored, as nowhere is left to say them. */
export async function printError(text: string): Promise<void> {
  try {
    await standardOutput(2).write(new TextEncoder().encode(text));
  } catch {
    // Standard error is closed.
  }
}

/** Standard input, chunk by chunk; nothing is read before it is asked for. */
export function standardInput(): AsyncIterable<Uint8Array> {
  return Bun.stdin.stream();
}
