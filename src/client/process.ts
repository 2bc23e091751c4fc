/** A process in a VM as the library offers it: output to iterate over, input to write, and its exit. */
import type { StreamRequest, Vm } from "../contract/api.ts";
import type { OutputChunk } from "./raw-stream.ts";
import { type OutputName, openSession, type ProcessExit, type Session } from "./session.ts";
import type { Transport } from "./transport.ts";

/** A process in a VM. */
export interface Process extends AsyncDisposable {
  /** The VM that it runs in. */
  readonly vm: Vm;
  /**
   * Its output as it comes, to be iterated over once. The process has to wait while nobody takes the next chunk. It ends with the process; a
   * failure is thrown.
   */
  readonly output: AsyncIterable<OutputChunk>;
  readonly stdin: {
    /** Resolves when it was sent. Needs `stdin: true` in the request. */
    write(content: Uint8Array | string): Promise<void>;
    end(): void;
  };
  /** Resolves when the process has ended and its output was taken. Leaving the output alone makes it wait. */
  readonly exited: Promise<ProcessExit>;
  /** Takes all output, as text, and waits for the exit. */
  collect(): Promise<ProcessExit & { stdout: string; stderr: string }>;
  signal(signal: number): void;
  resize(rows: number, columns: number): void;
  /** Leaves it; it goes on, unless its VM was created with `autoRemove`. */
  detach(): void;
}

/** Starts or joins a process and waits until it runs. @throws MayflyError. */
export async function openProcess(
  transport: Transport,
  path: string,
  request: StreamRequest,
  onProgress?: (step: string) => void,
): Promise<Process> {
  const output = new OutputQueue();
  const events = { output: (name: OutputName, bytes: Uint8Array) => output.push(name, bytes) };
  const session = await openSession(
    transport,
    path,
    request,
    onProgress ? { ...events, progress: onProgress } : events,
  );
  session.exited.then(
    () => output.end(),
    (error: unknown) => output.fail(error),
  );
  return processOf(session, await session.started, output);
}

function processOf(session: Session, vm: Vm, output: OutputQueue): Process {
  return {
    vm,
    output,
    stdin: {
      write: (content) => session.write(typeof content === "string" ? new TextEncoder().encode(content) : content),
      end: () => session.endInput(),
    },
    exited: session.exited,
    async collect() {
      const parts: Record<OutputName, string> = { stdout: "", stderr: "" };
      const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
      for await (const { name, bytes } of output) parts[name] += decoders[name].decode(bytes, { stream: true });
      return { ...(await session.exited), ...parts };
    },
    signal: (signal) => session.signal(signal),
    resize: (rows, columns) => session.resize(rows, columns),
    detach: () => session.close(),
    async [Symbol.asyncDispose]() {
      session.close();
    },
  };
}

/** One chunk at a time from the socket to whoever iterates. */
class OutputQueue implements AsyncIterable<OutputChunk> {
  readonly #chunks: { chunk: OutputChunk; taken: () => void }[] = [];
  #end: { error: unknown } | undefined;
  #wake: (() => void) | undefined;
  #abandoned = false;

  push(name: OutputName, bytes: Uint8Array): Promise<void> | undefined {
    if (this.#abandoned) return undefined;
    return new Promise((resolve) => {
      this.#chunks.push({ chunk: { name, bytes: bytes.slice() }, taken: resolve });
      this.#wake?.();
    });
  }

  end(): void {
    this.#end ??= { error: undefined };
    this.#wake?.();
  }

  fail(error: unknown): void {
    this.#end ??= { error };
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<OutputChunk> {
    try {
      while (true) {
        const next = this.#chunks.shift();
        if (next !== undefined) {
          next.taken();
          yield next.chunk;
          continue;
        }
        if (this.#end?.error !== undefined) throw this.#end.error;
        if (this.#end !== undefined) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      this.#abandoned = true;
      for (const { taken } of this.#chunks.splice(0)) taken();
    }
  }
}
