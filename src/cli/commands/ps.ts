/** `mayfly ps`: the list of VMs. */
import type { Vm } from "../../contract/api.ts";
import { MayflyError } from "../../contract/errors.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { shortId } from "../ids.ts";
import { formatElapsed } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

const STATES = ["creating", "running", "stopping", "exited", "failed"] as const;

export const command = defineCommand({
  description: "List VMs: those that run, or with --all also ended ones.",
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
      summary: "Only VMs with this name (a part of it), state, id or label=KEY[=VALUE]",
    },
    last: { kind: "value", short: "n", value: "NUMBER", summary: "Only so many of the newest, in any state" },
  },
  examples: [
    ["mayfly ps -a", "all VMs"],
    ["mayfly ps -a --filter state=exited --filter label=team=web", "ended VMs with a label"],
    ["mayfly rm -f $(mayfly ps -aq)", "remove everything"],
  ],
  async run({ options, global }) {
    const filters = options.filter.map(parseFilter);
    const everyState = options.all || options.last !== undefined || filters.some(({ key }) => key === "state");
    const { parseCount } = await import("../sizes.ts");
    const limit = options.last === undefined ? Number.POSITIVE_INFINITY : parseCount("--last", options.last);
    const vms = (await openClient(global).vms.list())
      .filter((vm) => everyState || vm.state === "running" || vm.state === "creating" || vm.state === "stopping")
      .filter((vm) => filters.every((filter) => matches(vm, filter)))
      .sort((a, b) => b.createdAt.localeCompare(a.createdAt))
      .slice(0, limit);
    if (options.quiet) {
      await print(
        vms.map((vm) => `${options.names ? vm.name : options["no-trunc"] ? vm.id : shortId(vm.id)}\n`).join(""),
      );
      return 0;
    }
    const { printJson, printTable } = await import("../output.ts");
    if (global.json) await printJson(vms);
    else
      await printTable(
        ["VM ID", "ROOTFS", "COMMAND", "CREATED", "STATUS", "NAME"],
        vms.map((vm) => row(vm, options["no-trunc"])),
      );
    return 0;
  },
});

interface Filter {
  key: "name" | "state" | "id" | "label";
  value: string;
}

function parseFilter(text: string): Filter {
  const [, name, value = ""] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
  const key = name === "status" ? "state" : name;
  if (key === "state" && !STATES.some((state) => state === value)) {
    throw new MayflyError(
      "invalid_argument",
      `--filter has state ${JSON.stringify(value)}; the states are ${STATES.join(", ")}`,
    );
  }
  if (key === "name" || key === "state" || key === "id" || key === "label") return { key, value };
  throw new MayflyError(
    "invalid_argument",
    `--filter is ${JSON.stringify(text)}; it takes name=, state=, id= or label=`,
  );
}

function matches(vm: Vm, { key, value }: Filter): boolean {
  if (key === "name") return vm.name.includes(value);
  if (key === "state") return vm.state === value;
  if (key === "id") return vm.id.startsWith(value) || vm.id.slice(vm.id.indexOf("_") + 1).startsWith(value);
  const equals = value.indexOf("=");
  if (equals < 0) return Object.hasOwn(vm.labels, value);
  return vm.labels[value.slice(0, equals)] === value.slice(equals + 1);
}

function row(vm: Vm, whole: boolean): string[] {
  const command = vm.command.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`)).join(" ");
  return [
    whole ? vm.id : shortId(vm.id),
    vm.rootfs ?? "-",
    whole || command.length <= 32 ? command : `${command.slice(0, 31)}…`,
    `${formatElapsed(vm.createdAt, Date.now())} ago`,
    statusOf(vm),
    vm.name,
  ];
}

/** State and since when, as docker words it. */
export function statusOf(vm: Vm): string {
  const since = (time: string | null) => (time === null ? "" : formatElapsed(time, Date.now()));
  if (vm.state === "running") return `Up ${since(vm.startedAt)}`.trim();
  if (vm.state === "exited") return `Exited (${vm.exitCode ?? "?"}) ${since(vm.finishedAt)} ago`;
  if (vm.state === "failed") return `Failed (${vm.error?.code ?? "?"}) ${since(vm.finishedAt)} ago`;
  return vm.state === "creating" ? "Creating" : "Stopping";
}
