/** A script for the fake engine that runs commands on this host, so that streams carry what real processes read and write. */
import { MayflyError } from "../../src/contract/errors.ts";
import type { FakeProcess, Script } from "./fake-engine.ts";
import { FakeEngine } from "./fake-engine.ts";

/** Runs the process' command with its environment and directory; its signals and input go to it. A terminal is `script`'s. */
export const runOnHost: Script = (process) => {
  void follow(process).catch((error: unknown) => {
    process.fail(new MayflyError("internal", error instanceof Error ? error.message : String(error)));
  });
};

async function follow(fake: FakeProcess): Promise<void> {
  const { command = [], env, workdir, stdin, timeoutMs } = fake.request;
  const found = Bun.which(command[0] ?? "");
  if (found === null) {
    fake.fail(new MayflyError("command_not_found", `Cannot run ${command[0]}: it is not found in PATH`));
    return;
  }
  const child = Bun.spawn([found, ...command.slice(1)], {
    env: { PATH: Bun.env["PATH"] ?? "", ...env },
    cwd: workdir ?? "/",
    stdin: stdin ? "pipe" : "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  fake.write = async (bytes) => {
    if (typeof child.stdin === "number" || child.stdin === undefined) return;
    child.stdin.write(bytes.slice());
    await child.stdin.flush();
  };
  fake.closeInput = () => {
    if (typeof child.stdin !== "number") void child.stdin?.end();
  };
  fake.signal = (signal) => {
    fake.signals.push(signal);
    child.kill(signal);
  };
  if (timeoutMs !== undefined) setTimeout(() => child.kill("SIGKILL"), timeoutMs);
  const copy = async (stream: ReadableStream<Uint8Array>, channel: 1 | 2) => {
    for await (const chunk of stream) {
      for (let at = 0; at < chunk.length; at += 65_536) await fake.print(chunk.subarray(at, at + 65_536), channel);
    }
  };
  await Promise.all([copy(child.stdout, 1), copy(child.stderr, 2), child.exited]);
  const signal = child.signalCode === null ? 0 : (SIGNAL_NUMBERS[child.signalCode] ?? 0);
  fake.exit(child.exitCode ?? 128 + signal, signal);
}

const SIGNAL_NUMBERS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGPIPE: 13,
  SIGTERM: 15,
};

/** Events that everybody who subscribes to a {@link hostEngine} gets. */
const GREETING_EVENTS = ["test.one", "other.two", "test.three"];

/** A fake engine whose commands run on this host; with some kept output, and events for each who asks for them. */
export function hostEngine(): FakeEngine {
  const engine = new FakeEngine();
  engine.script = runOnHost;
  engine.logChunks = [
    { channel: 1, chunk: new TextEncoder().encode("first\n") },
    { channel: 2, chunk: new TextEncoder().encode("second\n") },
    { channel: 1, chunk: new TextEncoder().encode("third\n") },
  ];
  engine.getImage = (ref) =>
    engine.listImages().find(({ id }) => id === ref) ?? FakeEngine.prototype.getImage.call(engine, ref);
  const subscribe = engine.subscribe.bind(engine);
  engine.subscribe = (listener) => {
    const stop = subscribe(listener);
    const send = () => {
      for (const type of GREETING_EVENTS)
        listener({ type, time: new Date(0).toISOString(), id: "vm_x", attributes: { n: 1 } });
    };
    queueMicrotask(send);
    return stop;
  };
  return engine;
}
