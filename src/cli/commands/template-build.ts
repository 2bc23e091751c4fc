/** `mayfly template build`. */
import type { BuildTemplateRequest, Template } from "../../contract/api.ts";
import { DEVICE_PROFILES, type DeviceProfile } from "../../contract/machine.ts";
import { print, printError } from "../../sys/standard-io.ts";
import { usageError } from "../arguments.ts";
import { openClient } from "../client.ts";
import { parseTmpfs } from "../container-options.ts";
import { oneLine, printJson } from "../output.ts";
import { parsePool, parseReady, parseWarmUp } from "../probes.ts";
import { processRequest } from "../process-options.ts";
import { formatBytes, parseBytes, parseCount, parseDurationMs, parsePositive } from "../sizes.ts";
import { defineCommand, type OptionSpecs, type OptionValues } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

const value = (placeholder: string, summary: string) => ({ kind: "value", value: placeholder, summary }) as const;
const list = (placeholder: string, summary: string) => ({ kind: "list", value: placeholder, summary }) as const;
const flag = (summary: string) => ({ kind: "flag", summary }) as const;

const OPTIONS = {
  name: value("NAME", "Name of the template, if not given as an operand"),
  image: { ...value("IMAGE", "Image whose application is warmed"), complete: "image" },
  memory: { ...value("SIZE", "Memory of the VMs, e.g. 256m (128m)"), short: "m" },
  cpus: value("NUMBER", "CPUs of the VMs (1)"),
  profile: {
    ...value("NAME", "Devices of VMs of a size: exec, disk, net or full (full, which serves all)"),
    complete: [...DEVICE_PROFILES],
  },
  ready: value("PROBE", "Ready when: http://:PORT/PATH, tcp://:PORT, exec:COMMAND, log:REGEX, started"),
  "ready-timeout": value("DURATION", "Longest that it may take to be ready (60s)"),
  "warm-up": list("COMMAND|URL", "Exercise it with a command, or with GET http://:PORT/PATH"),
  times: value("NUMBER", "How often (1)"),
  "post-clone": value("COMMAND", "Run this in each clone before the application goes on"),
  "hook-timeout": value("DURATION", "Longest that it and each hook of the image may take (10s)"),
  pool: value("WARM[:BLOCKED]", "Keep so many clones prepared"),
  env: { ...list("NAME=VALUE", "Set an environment variable, of all clones"), short: "e" },
  "env-file": { ...list("FILE", "Read environment variables from a file"), complete: "file" },
  entrypoint: value("COMMAND", "Run this instead of the image's entrypoint"),
  workdir: { ...value("DIR", "Working directory"), short: "w" },
  user: { ...value("USER[:GROUP]", "User and group, by name or number"), short: "u" },
  init: flag("Run a small init as PID 1"),
  "read-only": flag("Mount the root read-only"),
  tmpfs: list("PATH[:OPTIONS]", "Mount a tmpfs, e.g. /tmp:size=64m,mode=1777"),
  "pids-limit": value("NUMBER", "Most processes in the VM"),
  "cap-add": list("CAPABILITY", "Add a capability, or ALL"),
  "cap-drop": list("CAPABILITY", "Leave out a capability, or ALL"),
  force: { ...flag("Build it again even if it is there"), short: "f" },
} as const satisfies OptionSpecs;

type Values = OptionValues<typeof OPTIONS>;

export const command = defineCommand({
  usage: "[NAME] [-- COMMAND...]",
  description: `Without an image: build the template that VMs of a size are cloned from, unless a fitting one exists. With one: start its application in
a clone, wait until it is ready, exercise it, and make that the template NAME, whose clones have it running from the start. With neither, for the
name of such a template: build that again, by what it was built by; options given here take the place of what was said then. Prints the id.`,
  operands: [
    { name: "NAME", kind: "template", optional: true },
    { name: "COMMAND", kind: "none", optional: true, many: true },
  ],
  options: OPTIONS,
  examples: [
    ["mayfly template build -m 1g --cpus 2", "for larger VMs, before they are asked for"],
    [
      "mayfly template build web --image app:1 --ready http://:8080/health --times 20 --warm-up http://:8080/",
      "a web service",
    ],
    ["mayfly run -d --template web -p 8080:8080", "and a VM in which it runs already"],
    ["mayfly template build web --force", "the same again, after an update of QEMU or of the image"],
  ],
  async run({ options, operands, dashes, global }) {
    const [first, ...words] = operands;
    const operand = dashes ? undefined : first;
    if (operand !== undefined && options.name !== undefined) {
      throw usageError("mayfly template build", `NAME is given twice, as ${operand} and as --name ${options.name}`);
    }
    const name = operand ?? options.name;
    const request: BuildTemplateRequest = { ...(name === undefined ? {} : { name }), ...(await requestOf(options)) };
    const guest = dashes ? operands : words;
    if (guest.length > 0) request.command = [...guest];
    const client = openClient(global);
    // A name that nothing has is a slip here: without an image there would be nothing of it.
    if (operand !== undefined && request.image === undefined) await client.templates.get(operand);
    const template = await withProgress(global, (progress) => client.templates.build(request, progress));
    if (global.json) await printJson(template);
    else {
      await printError(figuresOf(template));
      await print(`${template.id}\n`);
    }
    return 0;
  },
});

async function requestOf(options: Values): Promise<BuildTemplateRequest> {
  const nothing = { interactive: false, tty: false, detach: false, timeout: undefined, "detach-keys": undefined };
  const request: BuildTemplateRequest = { ...(await processRequest({ ...options, ...nothing })) };
  if (options.image !== undefined) request.image = options.image;
  if (options.memory !== undefined) request.memoryBytes = parseBytes("--memory", options.memory);
  if (options.cpus !== undefined) request.cpus = parsePositive("--cpus", options.cpus);
  if (options.profile !== undefined) request.profile = profileOf(options.profile);
  if (options.ready !== undefined) request.ready = parseReady(options.ready);
  if (options["ready-timeout"] !== undefined) {
    request.readyTimeoutMs = parseDurationMs("--ready-timeout", options["ready-timeout"]);
  }
  if (options["warm-up"].length > 0) request.warmUp = options["warm-up"].map(parseWarmUp);
  if (options.times !== undefined) request.warmUpTimes = parseCount("--times", options.times, 1);
  if (options["post-clone"] !== undefined) request.postClone = ["/bin/sh", "-c", options["post-clone"]];
  if (options["hook-timeout"] !== undefined) {
    request.hookTimeoutMs = parseDurationMs("--hook-timeout", options["hook-timeout"]);
  }
  if (options.pool !== undefined) request.pool = parsePool("--pool", options.pool);
  if (options.force) request.force = true;
  return { ...request, ...containerOf(options) };
}

function profileOf(text: string): DeviceProfile {
  const profile = DEVICE_PROFILES.find((known) => known === text);
  if (profile !== undefined) return profile;
  const known = DEVICE_PROFILES.join(", ");
  throw usageError("mayfly template build", `--profile is ${JSON.stringify(text)}; it takes ${known}`);
}

function containerOf(options: Values): BuildTemplateRequest {
  const request: BuildTemplateRequest = {};
  if (options.entrypoint !== undefined) request.entrypoint = options.entrypoint === "" ? [] : [options.entrypoint];
  if (options.init) request.init = true;
  if (options["read-only"]) request.readOnly = true;
  if (options.tmpfs.length > 0) request.tmpfs = options.tmpfs.map(parseTmpfs);
  if (options["pids-limit"] !== undefined) request.pidsLimit = parseCount("--pids-limit", options["pids-limit"]);
  if (options["cap-add"].length > 0) request.capAdd = [...options["cap-add"]];
  if (options["cap-drop"].length > 0) request.capDrop = [...options["cap-drop"]];
  return request;
}

/** What the build took and what it made; nothing for a template of a size. */
function figuresOf({ application, buildMs, memory, name, deviceStateBytes }: Template): string {
  if (application === null) return "";
  const seconds = (ms: number) => `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  const warmed = application.recipe.warmUp === undefined ? "" : `, warmed up in ${seconds(application.warmUpMs)}`;
  const size = `${formatBytes(memory.allocatedBytes)} of memory and ${formatBytes(deviceStateBytes)} of device state on disk`;
  const failed =
    application.rehearsal === null ? "" : `hooks failed in their rehearsal: ${oneLine(application.rehearsal)}\n`;
  return `${name ?? ""}: ready after ${seconds(application.readyMs)}${warmed}, built in ${seconds(buildMs)}; ${size}\n${failed}`;
}
