/** `mayfly run`: a new VM with a command in it. */
import { resolve } from "node:path";
import { openSession } from "../../client/session.ts";
import type { CreateVmRequest } from "../../contract/api.ts";
import { usageError } from "../arguments.ts";
import { checkTerminal, runAttached } from "../attached.ts";
import { openTransport } from "../connection.ts";
import { DETACH_KEYS, parseDetachKeys } from "../detach-keys.ts";
import { PROCESS_OPTIONS, processRequest } from "../process-options.ts";
import { parseBytes, parsePositive } from "../sizes.ts";
import { defineCommand, type OptionSpecs, type OptionValues } from "../specification.ts";

const OPTIONS = {
  ...PROCESS_OPTIONS,
  rm: { kind: "flag", summary: "Remove the VM and its logs when it ends" },
  name: { kind: "value", value: "NAME", summary: "Name of the VM" },
  hostname: { kind: "value", short: "h", value: "NAME", summary: "Host name inside the VM" },
  label: { kind: "list", short: "l", value: "KEY=VALUE", summary: "Attach a label" },
  memory: { kind: "value", short: "m", value: "SIZE", summary: "Memory, e.g. 256m or 1g (128m)" },
  cpus: { kind: "value", value: "NUMBER", summary: "CPUs, fractions allowed (1)" },
  rootfs: {
    kind: "value",
    value: "IMAGE",
    complete: "image",
    summary: "Root file system: an imported image, or the path of an erofs or ext4 image",
  },
  "no-pool": { kind: "flag", summary: "Take neither a prepared VM nor a prepared QEMU" },
} as const satisfies OptionSpecs;

export const command = defineCommand({
  description: `Start a VM and run a command in it. Options end at the command: what follows belongs to it.
With -d
the command may be missing: then the VM runs until it is stopped, for exec. Signals are passed on to the command. After three SIGINT or SIGTERM the VM is left alone and goes on.`,
  operands: [{ name: "COMMAND", kind: "command", optional: true }],
  options: OPTIONS,
  examples: [
    ["mayfly run --rm -- sh -c 'uname -r; exit 7'", "run a command and take its exit code"],
    ["echo hi | mayfly run --rm -i -- cat", "pipe through a VM"],
    ["mayfly run --rm -it --rootfs debian bash", "a shell in an imported image"],
    ["mayfly run -d --name web -m 256m --rootfs site httpd -f", "leave a VM running"],
  ],
  async run({ options, operands, global }) {
    if (operands.length === 0 && !options.detach) {
      throw usageError("mayfly run", "COMMAND is missing (only with -d a VM can do without)");
    }
    checkTerminal(options.interactive && !options.detach, options.tty);
    const request = await createRequest(options, operands);
    if (options.detach) {
      const { createDetached } = await import("../detached.ts");
      return createDetached(global, request);
    }
    const detachKeys = options.rm ? undefined : parseDetachKeys(options["detach-keys"] ?? DETACH_KEYS);
    const transport = openTransport(global);
    return runAttached((events) => openSession(transport, "/v1/vms/run", { type: "create", request }, events), {
      stdin: options.interactive,
      terminal: options.tty,
      detachKeys,
      timeoutMs: request.timeoutMs,
      removedWhenLeft: options.rm,
    });
  },
});

async function createRequest(
  options: OptionValues<typeof OPTIONS>,
  operands: readonly string[],
): Promise<CreateVmRequest> {
  const request: CreateVmRequest = { ...(await processRequest(options)) };
  if (operands.length > 0) request.command = [...operands];
  if (options.rm) request.autoRemove = true;
  if (options.name !== undefined) request.name = options.name;
  if (options.hostname !== undefined) request.hostname = options.hostname;
  if (options.label.length > 0) request.labels = Object.fromEntries(options.label.map(splitLabel));
  if (options.memory !== undefined) request.memoryBytes = parseBytes("--memory", options.memory);
  if (options.cpus !== undefined) request.cpus = parsePositive("--cpus", options.cpus);
  if (options.rootfs !== undefined) request.rootfs = rootfsOf(options.rootfs);
  if (options["no-pool"]) request.pool = false;
  return request;
}

/** A name as it is; what has a slash is a file of this host, whose path the daemon needs whole. */
function rootfsOf(rootfs: string): string {
  return rootfs.includes("/") ? resolve(rootfs) : rootfs;
}

function splitLabel(label: string): [key: string, value: string] {
  const equals = label.indexOf("=");
  return equals < 0 ? [label, ""] : [label.slice(0, equals), label.slice(equals + 1)];
}
