/** `mayfly run`: a new VM with a command in it. */
import { resolve } from "node:path";
import { openSession } from "../../client/session.ts";
import type { CreateVmRequest } from "../../contract/api.ts";
import { usageError } from "../arguments.ts";
import { checkTerminal, runAttached } from "../attached.ts";
import { openTransport } from "../connection.ts";
import { CONTAINER_OPTIONS, containerRequest } from "../container-options.ts";
import { DETACH_KEYS, parseDetachKeys } from "../detach-keys.ts";
import { IDLE_OPTIONS, idleRequest } from "../idle-options.ts";
import { parseLabels } from "../labels.ts";
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
  ...CONTAINER_OPTIONS,
  merge: {
    kind: "flag",
    summary: "Let the kernel merge its memory with equal memory of others; see docs/SECURITY.md",
  },
  ...IDLE_OPTIONS,
  "no-pool": { kind: "flag", summary: "Take neither a prepared VM nor a prepared QEMU" },
} as const satisfies OptionSpecs;

export const command = defineCommand({
  usage: "[IMAGE] [COMMAND...]",
  description: `Start a VM from an image and run its command, or another one, in it. Options end at the image: what follows belongs to the command.
Without an image (nothing before "--", or with --rootfs, --template or --snapshot) all operands are the command; without those it runs in the base guest.
With -d the command may be missing: then a VM without an image runs until it is stopped, for exec. Signals are passed on to the command.
After three SIGINT or SIGTERM the VM is left alone and goes on.`,
  operands: [
    { name: "IMAGE", kind: "image", optional: true },
    { name: "COMMAND", kind: "command", optional: true },
  ],
  options: OPTIONS,
  examples: [
    ["mayfly run --rm -- sh -c 'uname -r; exit 7'", "run a command in the base guest and take its exit code"],
    ["echo hi | mayfly run --rm -i -- cat", "pipe through a VM"],
    ["mayfly run --rm -it debian:12 bash", "a shell in an image"],
    [
      "mayfly run -d --name web -p 127.0.0.1:8080:80 -v data:/data localhost:5000/app:1",
      "a service with a port and a volume",
    ],
    ["mayfly run -d --template app -p 8080:8080", "the same, already running when it starts"],
    [
      "mayfly run -d --idle suspend -p 8080:8080 localhost:5000/app:1",
      "a service that costs nothing while nobody uses it",
    ],
    ["mayfly run -d --snapshot before-update -p 8081:8080", "another VM, from where one was at a checkpoint"],
  ],
  async run({ options, operands, dashes, global }) {
    // The application of a template or snapshot runs already: it wants no command.
    const isReady = options.template !== undefined || options.snapshot !== undefined;
    const isImage = !dashes && options.rootfs === undefined && !isReady;
    const image = isImage ? operands[0] : undefined;
    const words = image === undefined ? operands : operands.slice(1);
    if (image === undefined && words.length === 0 && !options.detach && !isReady) {
      throw usageError("mayfly run", "IMAGE or COMMAND is missing (only with -d a VM can do without)");
    }
    checkTerminal(options.interactive && !options.detach, options.tty);
    const request = await createRequest(options, image, words);
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
      passSignals: true,
      removedWhenLeft: options.rm,
    });
  },
});

async function createRequest(
  options: OptionValues<typeof OPTIONS>,
  image: string | undefined,
  operands: readonly string[],
): Promise<CreateVmRequest> {
  const request: CreateVmRequest = { ...(await processRequest(options)), ...(await containerRequest(options)) };
  if (image !== undefined) request.image = image;
  if (operands.length > 0) request.command = [...operands];
  if (options.rm) request.autoRemove = true;
  if (options.name !== undefined) request.name = options.name;
  if (options.hostname !== undefined) request.hostname = options.hostname;
  if (options.label.length > 0) request.labels = parseLabels(options.label);
  if (options.memory !== undefined) request.memoryBytes = parseBytes("--memory", options.memory);
  if (options.cpus !== undefined) request.cpus = parsePositive("--cpus", options.cpus);
  if (options.rootfs !== undefined) request.rootfs = rootfsOf(options.rootfs);
  if (options.merge) request.merge = true;
  const idle = idleRequest(options);
  if (idle !== undefined) request.idle = idle;
  if (options["no-pool"]) request.pool = false;
  return request;
}

/** A name as it is; what has a slash is a file of this host, whose path the daemon needs whole. */
function rootfsOf(rootfs: string): string {
  return rootfs.includes("/") ? resolve(rootfs) : rootfs;
}
