/** Options of `run` that are about the container, and the part of the request that they make. */
import type { CreateVmRequest, HealthCheck, RestartPolicy, TmpfsMount } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { parsePublish } from "./ports.ts";
import { parseSignal } from "./signals.ts";
import { parseBytes, parseCount, parseDurationMs } from "./sizes.ts";
import type { OptionSpecs, OptionValues } from "./specification.ts";
import { parseVolume } from "./volumes.ts";

const value = (placeholder: string, summary: string) => ({ kind: "value", value: placeholder, summary }) as const;
const list = (placeholder: string, summary: string) => ({ kind: "list", value: placeholder, summary }) as const;
const flag = (summary: string) => ({ kind: "flag", summary }) as const;

/** Docker's names, where docker has the option. */
export const CONTAINER_OPTIONS = {
  template: {
    ...value("NAME", "Start from this template; one of an image has its application running"),
    complete: "template",
  },
  snapshot: {
    ...value("SNAPSHOT", "Go on from this snapshot, with an identity of its own"),
    complete: "snapshot",
  },
  pull: {
    ...value("WHEN", "Pull the image: missing, always or never (missing)"),
    complete: ["missing", "always", "never"],
  },
  publish: { ...list("[IP:][HOSTPORT:]PORT", "Forward a TCP port of the host to one of the VM"), short: "p" },
  "publish-all": { ...flag("Forward free ports to all that the image exposes"), short: "P" },
  disk: value("SIZE", "Keep what is written to the root on a disk of this size instead of in memory"),
  volume: {
    ...list("[NAME|DIR:]PATH[:ro]", "Mount a volume, made if it is missing, or a snapshot of a directory (:ro)"),
    short: "v",
    complete: "volume",
  },
  tmpfs: list("PATH[:OPTIONS]", "Mount a tmpfs, e.g. /tmp:size=64m,mode=1777"),
  "read-only": flag("Mount the root read-only"),
  entrypoint: value("COMMAND", "Run this instead of the image's entrypoint"),
  init: flag("Run a small init as PID 1"),
  "pids-limit": value("NUMBER", "Most processes in the VM"),
  "cap-add": list("CAPABILITY", "Add a capability, or ALL"),
  "cap-drop": list("CAPABILITY", "Leave out a capability, or ALL"),
  "stop-signal": value("SIGNAL", "Signal that asks the main process to end"),
  "stop-timeout": value("DURATION", "How long it has before it is killed (10s)"),
  restart: value("POLICY", "no, on-failure[:N], always or unless-stopped"),
  "health-cmd": value("COMMAND", "Ask for the VM's health by this command"),
  "health-interval": value("DURATION", "Time between two checks (30s)"),
  "health-timeout": value("DURATION", "Longest that a check may take (30s)"),
  "health-retries": value("NUMBER", "Failures in a row that make it unhealthy (3)"),
  "health-start-period": value("DURATION", "Time in which failures do not count (0s)"),
  "health-start-interval": value("DURATION", "Time between two checks in that period (5s)"),
  "no-healthcheck": flag("No checks, whatever the image says"),
  secret: { ...list("NAME=FILE", "Put a file into /run/secrets"), complete: "file" },
} as const satisfies OptionSpecs;

type Values = OptionValues<typeof CONTAINER_OPTIONS>;

/** The part of a request that these options make. @throws MayflyError `invalid_argument`. */
export async function containerRequest(options: Values): Promise<Partial<CreateVmRequest>> {
  const request: Partial<CreateVmRequest> = {};
  if (options.template !== undefined) request.template = options.template;
  if (options.snapshot !== undefined) request.snapshot = options.snapshot;
  if (options.pull !== undefined) request.pull = parsePull(options.pull);
  if (options.publish.length > 0) request.ports = options.publish.flatMap(parsePublish);
  if (options["publish-all"]) request.publishAll = true;
  if (options.disk !== undefined) request.diskBytes = parseBytes("--disk", options.disk);
  if (options.volume.length > 0) request.volumes = options.volume.map((text) => parseVolume(text));
  if (options.tmpfs.length > 0) request.tmpfs = options.tmpfs.map(parseTmpfs);
  if (options["read-only"]) request.readOnly = true;
  if (options.entrypoint !== undefined) request.entrypoint = options.entrypoint === "" ? [] : [options.entrypoint];
  if (options.init) request.init = true;
  if (options["pids-limit"] !== undefined) request.pidsLimit = wholeNumber("--pids-limit", options["pids-limit"]);
  if (options["cap-add"].length > 0) request.capAdd = [...options["cap-add"]];
  if (options["cap-drop"].length > 0) request.capDrop = [...options["cap-drop"]];
  if (options["stop-signal"] !== undefined) request.stopSignal = parseSignal("--stop-signal", options["stop-signal"]);
  if (options["stop-timeout"] !== undefined) {
    request.stopGraceMs = parseDurationMs("--stop-timeout", options["stop-timeout"]);
  }
  if (options.restart !== undefined) request.restart = parseRestart(options.restart);
  const health = healthOf(options);
  if (health !== undefined) request.health = health;
  if (options.secret.length > 0) request.secrets = await secretsOf(options.secret);
  return request;
}

function healthOf(options: Values): HealthCheck | undefined {
  if (options["no-healthcheck"]) return { test: ["NONE"] };
  const health: HealthCheck = {};
  if (options["health-cmd"] !== undefined) health.test = ["CMD-SHELL", options["health-cmd"]];
  const duration = (name: "interval" | "timeout" | "start-period" | "start-interval") => {
    const text = options[`health-${name}`];
    return text === undefined ? undefined : Math.max(1, parseDurationMs(`--health-${name}`, text));
  };
  const interval = duration("interval");
  const timeout = duration("timeout");
  const startPeriod = duration("start-period");
  const startInterval = duration("start-interval");
  if (interval !== undefined) health.intervalMs = interval;
  if (timeout !== undefined) health.timeoutMs = timeout;
  if (startPeriod !== undefined) health.startPeriodMs = startPeriod;
  if (startInterval !== undefined) health.startIntervalMs = startInterval;
  if (options["health-retries"] !== undefined) {
    health.retries = wholeNumber("--health-retries", options["health-retries"]);
  }
  return Object.keys(health).length === 0 ? undefined : health;
}

function parsePull(text: string): "missing" | "always" | "never" {
  if (text === "missing" || text === "always" || text === "never") return text;
  throw new MayflyError("invalid_argument", `--pull is ${JSON.stringify(text)}, not missing, always or never`);
}

/** `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`. @throws MayflyError `invalid_argument`. */
export function parseRestart(text: string): RestartPolicy {
  const [name = "", retries, ...rest] = text.split(":");
  if (rest.length === 0 && (name === "no" || name === "always" || name === "unless-stopped") && retries === undefined) {
    return { name };
  }
  if (rest.length === 0 && name === "on-failure") {
    if (retries === undefined) return { name };
    if (/^\d{1,6}$/.test(retries)) return { name, maximumRetries: Number(retries) };
  }
  throw new MayflyError(
    "invalid_argument",
    `--restart is ${JSON.stringify(text)}, not no, on-failure, on-failure:NUMBER, always or unless-stopped`,
  );
}

/** `PATH[:OPTIONS]` with size=, mode=, ro, rw, exec, noexec. @throws MayflyError `invalid_argument`. */
export function parseTmpfs(text: string): TmpfsMount {
  const colon = text.indexOf(":");
  const mount: TmpfsMount = { target: colon < 0 ? text : text.slice(0, colon) };
  for (const option of colon < 0 ? [] : text.slice(colon + 1).split(",")) {
    const [name = "", given = ""] = option.split("=");
    if (name === "size") mount.sizeBytes = parseBytes("--tmpfs size", given);
    else if (name === "mode" && /^[0-7]{1,4}$/.test(given)) mount.mode = Number.parseInt(given, 8);
    else if (option === "ro") mount.readOnly = true;
    else if (option === "exec") mount.exec = true;
    else if (!["rw", "noexec", "nosuid", "nodev"].includes(option)) {
      throw new MayflyError(
        "invalid_argument",
        `--tmpfs ${text}: ${JSON.stringify(option)} is none of size=SIZE, mode=OCTAL, ro, rw, exec, noexec`,
      );
    }
  }
  return mount;
}

function wholeNumber(option: string, text: string): number {
  const number = parseCount(option, text);
  if (number > 0) return number;
  throw new MayflyError("invalid_argument", `${option} is 0, which leaves nothing`);
}

async function secretsOf(entries: readonly string[]): Promise<Record<string, string>> {
  const { readBytes } = await import("../sys/paths.ts");
  const secrets: Record<string, string> = {};
  for (const entry of entries) {
    const equals = entry.indexOf("=");
    if (equals < 1) throw new MayflyError("invalid_argument", `--secret is ${JSON.stringify(entry)}, not NAME=FILE`);
    const file = entry.slice(equals + 1);
    const bytes = await readBytes(file).catch((cause: unknown) => {
      throw new MayflyError("invalid_argument", `Cannot read --secret ${file}: ${(cause as Error).message}`, { cause });
    });
    secrets[entry.slice(0, equals)] = Buffer.from(bytes).toString("base64");
  }
  return secrets;
}
