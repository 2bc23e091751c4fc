/** For tests: the real daemon as a process of its own, over real QEMU, to be killed and started again. */
import { closeSync, mkdirSync, openSync } from "node:fs";
import { connect } from "../../src/client/index.ts";
import { ROOT } from "../architecture/sources.ts";
import { newDirectory, noteGroup, plantArtifacts, plantTemplate } from "./engine-host.ts";
import { type Leftovers, leftoversOf, NOTHING_LEFT } from "./engine-leftovers.ts";

/** A client of the library. */
export type Client = Awaited<ReturnType<typeof connect>>;

/** How a test's daemon is started. */
export interface TestDaemonOptions {
  /** A module that is loaded before it, and variables for that. */
  preload?: { path: string; env: Record<string, string> };
}

/** How a daemon that did not start ended. */
export interface FailedStart {
  exitCode: number;
  said: string;
}

/** A daemon's directories, and the daemon that serves them at the moment. */
export class TestDaemon implements AsyncDisposable {
  #process: Bun.Subprocess | undefined;
  #client: Client | undefined;
  /** Milliseconds that the last start took until it answered. */
  startMs = 0;

  private constructor(
    readonly stateDir: string,
    readonly runDir: string,
    readonly group: string,
    readonly pool: string,
    private readonly options: TestDaemonOptions,
  ) {}

  /** Makes directories with the default shape's template, and starts a daemon on them. @param pool as `--pool` takes it. */
  static async start(pool = "0:0", options: TestDaemonOptions = {}): Promise<TestDaemon> {
    const root = newDirectory("daemon");
    const [stateDir, runDir] = [`${root}/state`, `${root}/run`];
    mkdirSync(stateDir, { mode: 0o711 });
    await plantArtifacts(stateDir);
    await plantTemplate(stateDir);
    const daemon = new TestDaemon(stateDir, runDir, noteGroup(stateDir), pool, options);
    await daemon.begin();
    return daemon;
  }

  get client(): Client {
    if (this.#client === undefined) throw new Error("the daemon is not running");
    return this.#client;
  }

  get isRunning(): boolean {
    return this.#client !== undefined;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Starts the daemon and connects. @throws when it does not start. */
  async begin(): Promise<void> {
    const startedMs = performance.now();
    const started = await this.launch();
    if ("said" in started) throw new Error(`the daemon ended with ${started.exitCode}: ${started.said}`);
    this.#process = started;
    this.#client = await connect({ socketPath: `${this.runDir}/mayfly.sock` });
    this.startMs = performance.now() - startedMs;
  }

  /** Starts a daemon process on the directories. @returns it once it listens, or how it ended. */
  async launch(): Promise<Bun.Subprocess | FailedStart> {
    const directories = ["--state-dir", this.stateDir, "--run-dir", this.runDir];
    const flags = ["--pool", this.pool, "--profiles", "none", "--accelerator", "tcg"];
    const { path, env = {} } = this.options.preload ?? {};
    const preload = path === undefined ? [] : ["--preload", path];
    const program = [process.execPath, ...preload, `${ROOT}/src/cli/main.ts`];
    const told = ["--log-level", "warn", "--ready-fd", "3"];
    const command = [...program, "--json", "daemon", ...directories, ...flags, ...told];
    const log = openSync(`${this.stateDir}/mayflyd.log`, "a", 0o600);
    const child = Bun.spawn(command, { stdio: ["ignore", log, log, "pipe"], env: { ...process.env, ...env } });
    closeSync(log);
    const line = await firstBytes(child.stdio[3] ?? undefined);
    if (line.startsWith("ready ")) return child;
    const exitCode = await child.exited;
    return { exitCode, said: await Bun.file(`${this.stateDir}/mayflyd.log`).text() };
  }

  /** Sends a signal to the daemon and waits for its end. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    this.#process?.kill(signal);
    await this.#process?.exited;
    this.#process = undefined;
    await this.#client?.close().catch(() => undefined);
    this.#client = undefined;
  }

  /** Kills the daemon and starts another. */
  async restart(): Promise<void> {
    await this.kill();
    await this.begin();
  }

  /** What is there besides the VMs that run and what pools hold. */
  async leftBehind(limitMs = 10_000): Promise<Leftovers> {
    const read = async () => {
      const [{ pools, vms }, listed] = await Promise.all([this.client.system.info(), this.client.vms.list()]);
      const owned = pools.reduce(
        (sum, { blocked, standing, warm, parent }) => sum + blocked + standing + warm + Number(parent),
        vms,
      );
      return leftoversOf(this, { owned, records: listed.length, descriptors: undefined });
    };
    const untilMs = performance.now() + limitMs;
    let left = await read();
    while (JSON.stringify(left) !== JSON.stringify(NOTHING_LEFT) && performance.now() < untilMs) {
      await Bun.sleep(20);
      left = await read();
    }
    return left;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#client !== undefined) {
      for (const { id } of await this.#client.vms.list()) {
        await this.#client.vms.remove(id, { force: true }).catch(() => undefined);
      }
    }
    await this.kill("SIGTERM");
  }
}

async function firstBytes(fd: number | undefined): Promise<string> {
  if (fd === undefined) return "";
  for await (const chunk of Bun.file(fd).stream()) return Buffer.from(chunk).toString();
  return "";
}
