/** What `mayfly bench density` may be told. */
import { resolve } from "node:path";
import { readOptions, usageError } from "../../src/cli/arguments.ts";
import { UNIVERSAL_OPTIONS } from "../../src/cli/specification.ts";
import { ARTIFACT_OPTIONS, wholeNumber } from "../options.ts";

/** Containers to measure beside the VMs: containerd with runc, podman with crun. */
export const DENSITY_PEERS = ["containerd", "podman"] as const;
export type DensityPeer = (typeof DENSITY_PEERS)[number];

/** Ways in which VMs are idle. */
export const VM_KINDS = ["mayfly", "mayfly-copies", "mayfly-paused", "mayfly-merge", "mayfly-suspended"] as const;
export type VmKind = (typeof VM_KINDS)[number];

/** Options of the scenario, all decided. */
export interface DensityOptions {
  /** Instances of each subject. */
  vms: number;
  kinds: readonly VmKind[];
  peers: readonly DensityPeer[];
  /** Starts, answers and removals at a time. */
  concurrency: number;
  /** Seconds over which idle CPU time is measured. */
  idleSeconds: number;
  /** Name of the QEMU, or stock or lean; undefined: the one in use. */
  qemu: string | undefined;
  /** Name or kind of the guest kernel; undefined: the one in use. */
  kernel: string | undefined;
  /** Where the picture goes; without it the curves are not measured. */
  plotPath: string | undefined;
  samplesPath: string | undefined;
  enforce: boolean;
  json: boolean;
}

const NAME = "mayfly bench density";
const DEFAULT_VMS = 100;
const DEFAULT_CONCURRENCY = 4;
const DEFAULT_IDLE_SECONDS = 10;
/** A daemon has no more slots for QEMUs than 4,096; some are for its probe and its templates. */
const MOST_VMS = 4000;

/** Options of the scenario `density`. */
export const DENSITY_OPTIONS = {
  vms: { kind: "value", value: "N", summary: "Instances of each subject (100)" },
  kinds: {
    kind: "value",
    value: "LIST",
    summary: "Of mayfly, mayfly-copies, mayfly-paused, mayfly-merge, mayfly-suspended (all)",
  },
  peers: { kind: "value", value: "LIST", summary: "Of containerd, podman; installed if missing (none)" },
  concurrency: { kind: "value", value: "C", summary: "Starts, answers and removals at a time (4)" },
  idle: { kind: "value", value: "SECONDS", summary: "Time over which idle CPU time is measured (10)" },
  ...ARTIFACT_OPTIONS,
  plot: {
    kind: "value",
    value: "FILE",
    summary: "Measure memory and start time by number as well, and draw them as SVG",
    complete: "file",
  },
  samples: { kind: "value", value: "FILE", summary: "Write every sample to a file, as JSON lines", complete: "file" },
  enforce: { kind: "flag", summary: "End with code 1 if a promise is not met" },
} as const;

/** Reads the words after the scenario's name. @returns undefined when help was asked for. @throws `invalid_argument`. */
export function densityOptions(argv: readonly string[], json: boolean): DensityOptions | undefined {
  const { options, operands } = readOptions({ ...UNIVERSAL_OPTIONS, ...DENSITY_OPTIONS }, argv, NAME, false);
  if (options["help"] === true) return undefined;
  if (operands.length > 0) throw usageError(NAME, `unexpected argument ${JSON.stringify(operands[0])}`);
  const { samples, plot, qemu, kernel } = options;
  const vms = wholeNumber(NAME, "vms", options["vms"]) ?? DEFAULT_VMS;
  if (vms > MOST_VMS) throw usageError(NAME, `--vms is ${vms}, more than ${MOST_VMS}`);
  return {
    vms,
    kinds: namesOf("kinds", options["kinds"], VM_KINDS) ?? VM_KINDS,
    peers: namesOf("peers", options["peers"], DENSITY_PEERS) ?? [],
    concurrency: wholeNumber(NAME, "concurrency", options["concurrency"]) ?? DEFAULT_CONCURRENCY,
    idleSeconds: wholeNumber(NAME, "idle", options["idle"]) ?? DEFAULT_IDLE_SECONDS,
    qemu: typeof qemu === "string" ? qemu : undefined,
    kernel: typeof kernel === "string" ? kernel : undefined,
    plotPath: typeof plot === "string" ? resolve(plot) : undefined,
    samplesPath: typeof samples === "string" ? samples : undefined,
    enforce: options["enforce"] === true,
    json: json || options["json"] === true,
  };
}

/** Names in a list with commas, in the order of `all`; undefined if it was not given. */
function namesOf<Name extends string>(option: string, text: unknown, all: readonly Name[]): Name[] | undefined {
  if (typeof text !== "string") return undefined;
  const names = text.split(",").filter((name) => name !== "");
  const unknown = names.find((name) => !all.some((known) => known === name));
  if (unknown === undefined) return all.filter((known) => names.includes(known));
  throw usageError(NAME, `--${option} names ${unknown}; there are ${all.join(", ")}`);
}
