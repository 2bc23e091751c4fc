/** What the daemon is told by flags and environment. */
import { version } from "../../package.json";
import type { Version } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { type Accelerator, DEVICE_PROFILES, type DeviceProfile } from "../contract/machine.ts";
import type { PoolRequest } from "../contract/template.ts";
import { daemonSocketPath, runDirectory, stateDirectory } from "../sys/directories.ts";
import type { LogLevel } from "./log.ts";

/** Settings of a daemon. */
export interface DaemonOptions {
  /** Everything that outlives a boot. Default `/var/lib/mayfly`. */
  stateDir: string;
  /** Sockets. Default `/run/mayfly`. */
  runDir: string;
  /** The REST interface's socket. Default `mayfly.sock` in runDir. */
  socketPath: string;
  /** A TCP listener besides, only with a token. */
  tcp: { host: string; port: number; tokenFile: string | undefined; token: string | undefined } | undefined;
  /** Prepared VMs of the default template; undefined: the engine's own numbers. */
  pool: PoolRequest | undefined;
  /** The accelerator to use; undefined: the one that a probe finds usable. */
  accelerator: Accelerator | undefined;
  /** How many times the host's memory all VMs could take together; undefined: the engine's own number. */
  overcommit: number | undefined;
  /** Device profiles of which the default size's templates are made beside the pool's; undefined: the engine's own choice. */
  profiles: readonly DeviceProfile[] | undefined;
  logLevel: LogLevel;
  /** A descriptor on which one line tells that the daemon is ready, or why it is not. */
  readyFd: number | undefined;
  /** How long closing the engine may take, in milliseconds; VMs go on whether it gets done or not. */
  closeLimitMs: number;
}

const CLOSE_LIMIT_MS = 10_000;

/** Environment variables, as `process.env` has them. */
export type Environment = Readonly<Record<string, string | undefined>>;

const FLAGS: Readonly<Record<string, string>> = {
  "--state-dir": "MAYFLY_STATE_DIR",
  "--run-dir": "MAYFLY_RUN_DIR",
  "--socket": "MAYFLY_SOCKET",
  "--listen": "MAYFLY_LISTEN",
  "--token-file": "MAYFLY_TOKEN_FILE",
  "--pool": "MAYFLY_POOL",
  "--accelerator": "MAYFLY_ACCELERATOR",
  "--overcommit": "MAYFLY_OVERCOMMIT",
  "--profiles": "MAYFLY_PROFILES",
  "--log-level": "MAYFLY_LOG_LEVEL",
  "--ready-fd": "MAYFLY_READY_FD",
};

const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;
const ACCELERATORS = ["kvm", "tcg"] as const;
/** Most prepared VMs of a kind: each holds memory. */
const POOL_LIMIT = 1000;
/** More than any host bears; who does not want the limit comes close enough with it. */
const OVERCOMMIT_LIMIT = 1000;

/**
 * Settings from flags, which win, and environment.
 * @throws `invalid_argument` naming the flag or variable.
 */
export function daemonOptions(flags: readonly string[], environment: Environment): DaemonOptions {
  const values = { ...environment, ...fromFlags(flags) };
  const runDir = absolute("MAYFLY_RUN_DIR", values["MAYFLY_RUN_DIR"] || runDirectory());
  return {
    stateDir: absolute("MAYFLY_STATE_DIR", values["MAYFLY_STATE_DIR"] || stateDirectory()),
    runDir,
    socketPath: absolute("MAYFLY_SOCKET", values["MAYFLY_SOCKET"] || daemonSocketPath(runDir)),
    tcp: tcpOptions(values),
    pool: poolSizes(values["MAYFLY_POOL"]),
    accelerator: oneOf("MAYFLY_ACCELERATOR", values["MAYFLY_ACCELERATOR"], ACCELERATORS),
    overcommit: ratio(values["MAYFLY_OVERCOMMIT"]),
    profiles: profileList(values["MAYFLY_PROFILES"]),
    logLevel: oneOf("MAYFLY_LOG_LEVEL", values["MAYFLY_LOG_LEVEL"], LOG_LEVELS) ?? "info",
    readyFd: descriptor(values["MAYFLY_READY_FD"]),
    closeLimitMs: CLOSE_LIMIT_MS,
  };
}

/** What answers `/v1/version`. */
export function daemonVersion(): Version {
  return { version, api: "v1", pid: process.pid };
}

function fromFlags(flags: readonly string[]): Record<string, string> {
  const values: Record<string, string> = {};
  for (let index = 0; index < flags.length; index += 1) {
    const [name = "", inline] = (flags[index] ?? "").split(/=(.*)/s);
    const variable = FLAGS[name];
    if (variable === undefined) {
      throw new MayflyError(
        "invalid_argument",
        `mayflyd does not know ${name}; it takes ${Object.keys(FLAGS).join(", ")}`,
      );
    }
    const value = inline ?? flags[++index];
    if (value === undefined) throw new MayflyError("invalid_argument", `mayflyd: ${name} needs a value`);
    values[variable] = value;
  }
  return values;
}

function tcpOptions(values: Environment): DaemonOptions["tcp"] {
  const listen = values["MAYFLY_LISTEN"];
  if (listen === undefined || listen === "") return undefined;
  const match = /^(?:(?<host>[^:[\]\s]+|\[[0-9a-fA-F:]+\]):)?(?<port>\d{1,5})$/.exec(listen);
  const port = Number(match?.groups?.["port"]);
  if (match === null || port > 65_535) throw wrong("MAYFLY_LISTEN", listen, "[HOST:]PORT");
  const host = (match.groups?.["host"] ?? "127.0.0.1").replace(/^\[|\]$/g, "");
  return {
    host,
    port,
    tokenFile: values["MAYFLY_TOKEN_FILE"] || undefined,
    token: values["MAYFLY_TOKEN"] || undefined,
  };
}

function poolSizes(text: string | undefined): DaemonOptions["pool"] {
  if (text === undefined || text === "") return undefined;
  const match = /^(\d{1,4}):(\d{1,4})(?::([01]))?$/.exec(text);
  const [blocked, warm] = [Number(match?.[1]), Number(match?.[2])];
  const parent = match?.[3] === undefined ? {} : { parent: match[3] === "1" };
  if (blocked <= POOL_LIMIT && warm <= POOL_LIMIT) return { blocked, warm, ...parent };
  throw wrong(
    "MAYFLY_POOL",
    text,
    `BLOCKED:WARM[:PARENT], such as 2:4 or 0:0:1, each at most ${POOL_LIMIT}, PARENT 0 or 1`,
  );
}

function ratio(text: string | undefined): number | undefined {
  if (text === undefined || text === "") return undefined;
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : 0;
  if (value > 0 && value <= OVERCOMMIT_LIMIT) return value;
  throw wrong("MAYFLY_OVERCOMMIT", text, `a number above 0, at most ${OVERCOMMIT_LIMIT}, such as 10 or 0.8`);
}

function profileList(text: string | undefined): readonly DeviceProfile[] | undefined {
  if (text === undefined || text === "") return undefined;
  if (text === "none") return [];
  const names = text.split(",");
  const profiles = DEVICE_PROFILES.filter((profile) => names.includes(profile));
  if (profiles.length === names.length) return profiles;
  throw wrong(
    "MAYFLY_PROFILES",
    text,
    `some of ${DEVICE_PROFILES.join(", ")}, each once, with commas between, or none`,
  );
}

function oneOf<T extends string>(name: string, text: string | undefined, choices: readonly T[]): T | undefined {
  if (text === undefined || text === "") return undefined;
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw wrong(name, text, choices.join(", "));
  return found;
}

function absolute(name: string, path: string): string {
  if (path.startsWith("/") && !path.includes("\0")) return path.replace(/(?<=.)\/+$/, "");
  throw wrong(name, path, "an absolute path");
}

function descriptor(text: string | undefined): number | undefined {
  if (text === undefined || text === "") return undefined;
  const fd = Number(text);
  if (Number.isInteger(fd) && fd > 2) return fd;
  throw wrong("MAYFLY_READY_FD", text, "the number of a descriptor above 2");
}

function wrong(name: string, value: string | undefined, wanted: string): MayflyError {
  return new MayflyError("invalid_argument", `Cannot use ${name}=${JSON.stringify(value ?? "")}: it takes ${wanted}`);
}
