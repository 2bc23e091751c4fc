/** Capabilities by name (capabilities(7), linux/capability.h), and those that containers have unless told otherwise. */
import { MayflyError } from "../contract/errors.ts";

/** In the order of their numbers, from 0. */
const CAPABILITIES = [
  "CHOWN",
  "DAC_OVERRIDE",
  "DAC_READ_SEARCH",
  "FOWNER",
  "FSETID",
  "KILL",
  "SETGID",
  "SETUID",
  "SETPCAP",
  "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE",
  "NET_BROADCAST",
  "NET_ADMIN",
  "NET_RAW",
  "IPC_LOCK",
  "IPC_OWNER",
  "SYS_MODULE",
  "SYS_RAWIO",
  "SYS_CHROOT",
  "SYS_PTRACE",
  "SYS_PACCT",
  "SYS_ADMIN",
  "SYS_BOOT",
  "SYS_NICE",
  "SYS_RESOURCE",
  "SYS_TIME",
  "SYS_TTY_CONFIG",
  "MKNOD",
  "LEASE",
  "AUDIT_WRITE",
  "AUDIT_CONTROL",
  "SETFCAP",
  "MAC_OVERRIDE",
  "MAC_ADMIN",
  "SYSLOG",
  "WAKE_ALARM",
  "BLOCK_SUSPEND",
  "AUDIT_READ",
  "PERFMON",
  "BPF",
  "CHECKPOINT_RESTORE",
] as const;

type Capability = (typeof CAPABILITIES)[number];

/** Docker's default set. */
const DEFAULT: readonly Capability[] = [
  "CHOWN",
  "DAC_OVERRIDE",
  "FOWNER",
  "FSETID",
  "KILL",
  "SETGID",
  "SETUID",
  "SETPCAP",
  "NET_BIND_SERVICE",
  "NET_RAW",
  "SYS_CHROOT",
  "MKNOD",
  "AUDIT_WRITE",
  "SETFCAP",
];

/** All that there are. */
export const ALL_CAPABILITIES = (1n << BigInt(CAPABILITIES.length)) - 1n;

const maskOf = (names: readonly Capability[]) =>
  names.reduce((mask, name) => mask | (1n << BigInt(CAPABILITIES.indexOf(name))), 0n);

/** Docker's default set as a mask. */
export const DEFAULT_CAPABILITIES = maskOf(DEFAULT);

/**
 * The capabilities of a container as a mask, bit n for capability n: docker's default ones, without `drop`, with `add`.
 * What is named in both is there, unless only `ALL` added it.
 * @throws `invalid_argument` for an unknown name.
 */
export function capabilityMask(add: readonly string[] = [], drop: readonly string[] = []): bigint {
  const added = add.map((name) => parse("capAdd", name));
  const dropped = drop.map((name) => parse("capDrop", name));
  const named = added.filter((name) => name !== "ALL");
  const start = added.includes("ALL") ? ALL_CAPABILITIES : maskOf(DEFAULT);
  const without = dropped.includes("ALL") ? 0n : start & ~maskOf(dropped.filter((name) => name !== "ALL"));
  return without | maskOf(named);
}

function parse(field: string, text: string): Capability | "ALL" {
  const name = text.toUpperCase().replace(/^CAP_/, "");
  if (name === "ALL") return "ALL";
  const known = CAPABILITIES.find((capability) => capability === name);
  if (known !== undefined) return known;
  throw new MayflyError("invalid_argument", `${field} has ${JSON.stringify(text)}, which is no capability`);
}
