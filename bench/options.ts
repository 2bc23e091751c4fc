/** What `mayfly bench` may be told. */
import { readOptions, usageError } from "../src/cli/arguments.ts";
import { UNIVERSAL_OPTIONS } from "../src/cli/specification.ts";
import { RUNTIMES } from "./peers.ts";

/** Peers: other runtimes, and the guest booted without a parent. */
export const PEERS = [...RUNTIMES, "boot"] as const;
export type PeerName = (typeof PEERS)[number];

/** Options of a scenario, all decided. */
export interface BenchOptions {
  runs: number;
  concurrency: number;
  peers: readonly PeerName[];
  pool: boolean;
  /** Requests to warm clones at a fixed rate. */
  requests: number;
  /** Their rate, a second; undefined: chosen by measuring how fast the pool refills. */
  rate: number | undefined;
  /** Name of the QEMU, or stock or lean; undefined: the one in use. */
  qemu: string | undefined;
  /** Name or kind of the guest kernel; undefined: the one in use. */
  kernel: string | undefined;
  samplesPath: string | undefined;
  enforce: boolean;
  json: boolean;
}

const NAME = "mayfly bench clone";
const REQUESTS_PER_RUN = 10;

/** Options that take another QEMU or kernel than those in force. */
export const ARTIFACT_OPTIONS = {
  qemu: { kind: "value", value: "NAME", summary: "QEMU: stock, lean, or one of qemu ls", complete: "qemu" },
  kernel: {
    kind: "value",
    value: "NAME",
    summary: "Guest kernel: cloud, minimal, or one of kernel ls",
    complete: "kernel",
  },
} as const;

/** Options of the scenario `clone`. */
export const CLONE_OPTIONS = {
  runs: { kind: "value", value: "N", summary: "Rounds, one sample of each subject in each (50)" },
  concurrency: { kind: "value", value: "C", summary: "Clones asked for at once (100)" },
  peers: { kind: "value", value: "LIST", summary: "Of runc, crun, podman, boot; those missing are left out (all)" },
  "no-pool": { kind: "flag", summary: "Leave out what takes prepared VMs" },
  requests: { kind: "value", value: "N", summary: "Requests for warm clones at a fixed rate (10 to each round)" },
  rate: { kind: "value", value: "R", summary: "That rate, a second (a quarter of what the pool can refill)" },
  ...ARTIFACT_OPTIONS,
  samples: { kind: "value", value: "FILE", summary: "Write every sample to a file, as JSON lines", complete: "file" },
  enforce: { kind: "flag", summary: "End with code 1 if a promise is not met" },
} as const;

/** Reads the words after the scenario's name. @returns undefined when help was asked for. @throws `invalid_argument`. */
export function benchOptions(argv: readonly string[], json: boolean): BenchOptions | undefined {
  const { options, operands } = readOptions({ ...UNIVERSAL_OPTIONS, ...CLONE_OPTIONS }, argv, NAME, false);
  if (options["help"] === true) return undefined;
  if (operands.length > 0) throw usageError(NAME, `unexpected argument ${JSON.stringify(operands[0])}`);
  const whole = (name: string) => wholeNumber(NAME, name, options[name]);
  const runs = whole("runs") ?? 50;
  const { samples, qemu, kernel } = options;
  return {
    runs,
    concurrency: whole("concurrency") ?? 100,
    peers: peersOf(options["peers"]),
    pool: options["no-pool"] !== true,
    requests: whole("requests") ?? runs * REQUESTS_PER_RUN,
    rate: positiveNumber(NAME, "rate", options["rate"]),
    qemu: typeof qemu === "string" ? qemu : undefined,
    kernel: typeof kernel === "string" ? kernel : undefined,
    samplesPath: typeof samples === "string" ? samples : undefined,
    enforce: options["enforce"] === true,
    json: json || options["json"] === true,
  };
}

/** The number above 0 that an option has, if it was given. @throws `invalid_argument` for anything else. */
function positiveNumber(command: string, name: string, text: unknown): number | undefined {
  if (typeof text !== "string") return undefined;
  const value = Number(text);
  if (text !== "" && Number.isFinite(value) && value > 0) return value;
  throw usageError(command, `--${name} is ${JSON.stringify(text)}, which is no number above 0`);
}

/** The same for whole numbers. */
export function wholeNumber(command: string, name: string, text: unknown): number | undefined {
  const value = positiveNumber(command, name, text);
  if (value === undefined || Number.isInteger(value)) return value;
  throw usageError(command, `--${name} is ${value}, which is no whole number`);
}

function peersOf(text: unknown): PeerName[] {
  if (typeof text !== "string") return [...PEERS];
  const names = text.split(",").filter((name) => name !== "");
  const unknown = names.find((name) => !isPeer(name));
  if (unknown !== undefined) throw usageError(NAME, `--peers names ${unknown}; there are ${PEERS.join(", ")}`);
  return names.filter(isPeer);
}

function isPeer(name: string): name is PeerName {
  return PEERS.some((peer) => peer === name);
}
