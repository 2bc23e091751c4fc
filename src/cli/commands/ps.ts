/** `mayfly ps`: the list of VMs. */
import type { Vm } from "../../contract/api.ts";
import { MayflyError } from "../../contract/errors.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { shortId } from "../ids.ts";
import { formatElapsed } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

/** States in which a VM is listed unless all are asked for. */
const ALIVE: readonly Vm["state"][] = ["creating", "running", "restarting", "stopping", "suspended"];
const STATES: readonly Vm["state"][] = [...ALIVE, "exited", "failed"];
const HEALTH = ["starting", "healthy", "unhealthy", "none"];
const COMMAND_CHARS = 32;

export const command = defineCommand({
  description: "List VMs, the newest first: those that run or are suspended, or with --all also ended ones.",
  operands: [],
  options: {
    all: { kind: "flag", short: "a", summary: "Ended VMs too" },
    quiet: { kind: "flag", short: "q", summary: "Only ids" },
    names: { kind: "flag", summary: "With --quiet: names instead of ids" },
    "no-trunc": { kind: "flag", summary: "Whole ids and commands" },
    filter: {
      kind: "list",
      short: "f",
      value: "KEY=VALUE",
      summary: "Only VMs with this status, name (a part of it), id, image, health or label=KEY[=VALUE]",
    },
    last: { kind: "value", short: "n", value: "NUMBER", summary: "Only so many of the newest, in any state" },
  },
  examples: [
    ["mayfly ps -a", "all VMs"],
    ["mayfly ps -a --filter status=exited --filter label=team=web", "ended VMs with a label"],
    ["mayfly ps --filter health=unhealthy -q", "what wants looking after"],
    ["mayfly rm -f $(mayfly ps -aq)", "remove everything"],
  ],
  async run({ options, global }) {
    const filters = options.filter.map(parseFilter);
    const everyState = options.all || options.last !== undefined || filters.some(({ key }) => key === "status");
    const { parseCount } = await import("../sizes.ts");
    const limit = options.last === undefined ? Number.POSITIVE_INFINITY : parseCount("--last", options.last);
    const vms = (await openClient(global).vms.list())
      .filter((vm) => everyState || ALIVE.includes(vm.state))
      .filter((vm) => Object.values(Object.groupBy(filters, ({ key }) => key)).every((some) => matchesOne(vm, some)))
      .sort((a, b) => b.createdAt.localeCompare(a.createdAt))
      .slice(0, limit);
    if (options.quiet) {
      const text = (vm: Vm) => (options.names ? vm.name : options["no-trunc"] ? vm.id : shortId(vm.id));
      await print(vms.map((vm) => `${text(vm)}\n`).join(""));
      return 0;
    }
    const { printJson, printTable } = await import("../output.ts");
    if (global.json) await printJson(vms);
    else await printTable(HEADING, await rows(vms, options["no-trunc"]));
    return 0;
  },
});

const KEYS = ["status", "name", "id", "image", "health", "label"] as const;
/** Other names of the keys: docker's, and that of the document. */
const KEY_ALIASES: Readonly<Record<string, string>> = { state: "status", ancestor: "image" };

interface Filter {
  key: (typeof KEYS)[number];
  value: string;
}

function parseFilter(text: string): Filter {
  const [, name = "", value = ""] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
  const key = KEYS.find((known) => known === (KEY_ALIASES[name] ?? name));
  if (key === undefined) {
    const keys = KEYS.map((known) => `${known}=`).join(", ");
    throw new MayflyError("invalid_argument", `--filter is ${JSON.stringify(text)}; it takes ${keys}`);
  }
  const known: readonly string[] | undefined = { status: STATES, health: HEALTH }[key as string];
  if (known === undefined || known.includes(value)) return { key, value };
  throw new MayflyError(
    "invalid_argument",
    `--filter has ${key} ${JSON.stringify(value)}, which is none of ${known.join(", ")}`,
  );
}

/** Of several values of one key a VM needs one, as with docker; of labels all. */
function matchesOne(vm: Vm, filters: readonly Filter[] = []): boolean {
  if (filters[0]?.key === "label") return filters.every((filter) => matches(vm, filter));
  return filters.some((filter) => matches(vm, filter));
}

function matches(vm: Vm, { key, value }: Filter): boolean {
  switch (key) {
    case "name":
      return vm.name.includes(value);
    case "status":
      return vm.state === value;
    case "health":
      return (vm.health?.status ?? "none") === value;
    case "id":
      return vm.id.startsWith(value) || vm.id.slice(vm.id.indexOf("_") + 1).startsWith(value);
    case "image":
      return isOnImage(vm, value);
    case "label":
      return hasLabel(vm, value);
  }
}

function hasLabel({ labels }: Vm, text: string): boolean {
  const equals = text.indexOf("=");
  if (equals < 0) return Object.hasOwn(labels, text);
  return labels[text.slice(0, equals)] === text.slice(equals + 1);
}

/** By name with or without its tag, as it is shown or whole, or by the beginning of the id. */
function isOnImage({ image, imageId, rootfs }: Vm, wanted: string): boolean {
  if (wanted === "") return false;
  if (imageId?.startsWith(wanted) || imageId?.slice(imageId.indexOf("_") + 1).startsWith(wanted)) return true;
  const name = image ?? rootfs;
  if (name === null) return false;
  return (
    name === wanted || name.endsWith(`/${wanted}`) || untagged(name) === wanted || untagged(name).endsWith(`/${wanted}`)
  );
}

function untagged(name: string): string {
  return name.replace(/@[^/]*$/, "").replace(/:[^:/]*$/, "");
}

const HEADING = ["VM ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];

async function rows(vms: readonly Vm[], whole: boolean): Promise<string[][]> {
  const [{ familiarName }, { formatPorts }] = await Promise.all([
    import("../../contract/reference.ts"),
    import("../ports.ts"),
  ]);
  return vms.map((vm) => {
    const words = vm.command.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`)).join(" ");
    return [
      whole ? vm.id : shortId(vm.id),
      vm.image === null ? (vm.rootfs ?? "-") : familiarName(vm.image),
      whole || words.length <= COMMAND_CHARS ? words : `${words.slice(0, COMMAND_CHARS - 1)}…`,
      `${formatElapsed(vm.createdAt, Date.now())} ago`,
      statusOf(vm),
      ALIVE.includes(vm.state) ? formatPorts(vm.ports) : "",
      vm.name,
    ];
  });
}

/** State and since when, as docker words it. */
export function statusOf(vm: Vm): string {
  const since = (time: string | null) => (time === null ? "" : formatElapsed(time, Date.now()));
  switch (vm.state) {
    case "running":
      return `Up ${since(vm.startedAt)} ${vm.pausedAt === undefined ? healthOf(vm) : "(Paused)"}`.trim();
    case "restarting":
      return `Restarting (${vm.exitCode ?? "?"})`;
    case "exited":
      return `Exited (${vm.exitCode ?? "?"}) ${since(vm.finishedAt)} ago`;
    case "failed":
      return `Failed (${vm.error?.code ?? "?"}) ${since(vm.finishedAt)} ago`;
    case "suspended":
      return "Suspended";
    case "creating":
      return "Creating";
    case "stopping":
      return "Stopping";
  }
}

function healthOf({ health }: Vm): string {
  if (health === null) return "";
  return health.status === "starting" ? "(health: starting)" : `(${health.status})`;
}
