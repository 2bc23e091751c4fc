/** The daemon's life: open the engine, serve it, say that it is ready, stop when told. */
import "./plain-validation.ts";

import { MayflyError } from "../contract/errors.ts";
import type { Engine } from "../engine/interface.ts";
import { activationSocket } from "../sys/activation.ts";
import { systemClock } from "../sys/clock.ts";
import { Deadline, nowMs } from "../sys/deadline.ts";
import { isAnswered } from "../sys/listening-socket.ts";
import { tryLockFile, waitForLock } from "../sys/lock.ts";
import { collectGarbage, giveBackStartMemory } from "../sys/own-memory.ts";
import { reportReady } from "../sys/ready.ts";
import { type DaemonOptions, daemonVersion } from "./config.ts";
import { log, logError, setLogLevel } from "./log.ts";
import { problemOf } from "./problem.ts";
import { QuietSpells } from "./quiet-spells.ts";
import { type Serving, serve } from "./serve.ts";
import { checkToken, readToken } from "./token.ts";

/** How long a killed daemon may take to be gone for good, in milliseconds. */
const DYING_LIMIT_MS = 2_000;

/** What requests have left is collected when nothing has happened for so long: requests in a row are not disturbed. */
const QUIET_MS = 1_000;

/** Makes the engine: `openEngine` with what it needs from the options. */
export type EngineOpener = (options: DaemonOptions) => Promise<Engine>;

/**
 * Runs a daemon until SIGTERM or SIGINT. VMs go on after it.
 * @throws whatever kept it from starting: `daemon_running`, `connection_failed`, `invalid_argument`, and what opening the engine throws.
 */
export async function runDaemon(options: DaemonOptions, openEngine: EngineOpener): Promise<void> {
  setLogLevel(options.logLevel);
  const stop = stopSignal();
  const ready = reportReady(options.readyFd);
  await using stack = new AsyncDisposableStack();
  try {
    const serving = await start(options, openEngine, stack);
    ready.ready(serving.addresses[0] ?? "");
  } catch (error) {
    const { code, detail } = problemOf(error);
    log("error", "cannot start", { code, error: detail });
    ready.failed(detail);
    throw error;
  }
  log("info", "stopping", { signal: await stop });
  ready.stopping();
}

/** Opens and serves; what was opened is released in reverse by the stack. */
async function start(options: DaemonOptions, openEngine: EngineOpener, stack: AsyncDisposableStack): Promise<Serving> {
  const startedMs = nowMs();
  const { socketPath, runDir } = options;
  stack.use(await lockRunDirectory(runDir, socketPath));
  const inherited = activationSocket();
  const tcp = await tcpOptions(options.tcp);
  const engine = await openEngine(options);
  stack.defer(async () => {
    const closed = Deadline.after(options.closeLimitMs).race(engine.close(), "the engine's close");
    await closed.catch((error: unknown) => logError("cannot close the engine", error));
  });
  const serving = await serve(engine, {
    socketPath,
    ...(inherited === undefined ? {} : { inherited }),
    ...(tcp === undefined ? {} : { tcp }),
  });
  stack.defer(() => serving.stop());
  await giveBackStartMemory();
  const spells = stack.use(new QuietSpells(systemClock, QUIET_MS, () => collectGarbage()));
  stack.defer(engine.subscribe(() => spells.touch()));
  const { version, pid } = daemonVersion();
  const startMs = Math.round(nowMs() - startedMs);
  log("info", "ready", { version, pid, listen: serving.addresses.join(","), stateDir: options.stateDir, startMs });
  return serving;
}

/**
 * One daemon to a run directory: it owns the sockets there. The lock of one that has just been killed goes a moment after its
 * socket, so a lock whose holder does not answer is waited for.
 */
async function lockRunDirectory(runDir: string, socketPath: string): Promise<Disposable> {
  const path = `${runDir}/mayflyd.lock`;
  const lock = tryLockFile(path);
  if (lock !== undefined) return lock;
  const inTheWay = () =>
    new MayflyError("daemon_running", `Cannot start: another daemon serves ${runDir} (it holds ${path})`, {
      details: { path },
    });
  if (await isAnswered(socketPath, Deadline.after(DYING_LIMIT_MS))) throw inTheWay();
  return waitForLock(path, { deadlineMs: DYING_LIMIT_MS }).catch((error: unknown) => {
    throw error instanceof MayflyError && error.code === "deadline_exceeded" ? inTheWay() : error;
  });
}

async function tcpOptions(
  tcp: DaemonOptions["tcp"],
): Promise<{ host: string; port: number; token: string } | undefined> {
  if (tcp === undefined) return undefined;
  const { host, port, tokenFile } = tcp;
  if (tokenFile !== undefined) return { host, port, token: await readToken(tokenFile) };
  if (tcp.token !== undefined) return { host, port, token: checkToken(tcp.token, "MAYFLY_TOKEN") };
  throw new MayflyError(
    "invalid_argument",
    `Cannot listen on ${host}:${port} without a token: name a file with one by --token-file`,
  );
}

/** Resolves with the first signal that ends the daemon. SIGHUP, which a closing terminal sends, is ignored. */
function stopSignal(): Promise<string> {
  return new Promise((resolve) => {
    process.on("SIGTERM", () => resolve("SIGTERM"));
    process.on("SIGINT", () => resolve("SIGINT"));
    process.on("SIGHUP", () => undefined);
  });
}
