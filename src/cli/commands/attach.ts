/** `mayfly attach`: the terminal connected to a VM's main process. */
import { openSession } from "../../client/session.ts";
import { usageError } from "../arguments.ts";
import { currentTerminalSize, runAttached } from "../attached.ts";
import { openClient } from "../client.ts";
import { openTransport } from "../connection.ts";
import { DETACH_KEYS, parseDetachKeys } from "../detach-keys.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Connect to the main process of a running VM: its output from now on, input, signals. Leaving it with the detach keys lets it
go on. Ends with the process: one that its VM's restart policy starts again is joined by attaching again.`,
  operands: [{ name: "VM", kind: "vm" }],
  options: {
    "no-stdin": { kind: "flag", summary: "Do not forward standard input" },
    "sig-proxy": {
      kind: "value",
      value: "true|false",
      complete: ["true", "false"],
      summary: "Whether signals go to it; otherwise they only end this (true)",
    },
    logs: { kind: "flag", summary: "Show what it has printed so far first" },
    "detach-keys": {
      kind: "value",
      value: "KEYS",
      summary: "Keys that leave it, if it has a terminal (ctrl-p,ctrl-q)",
    },
  },
  examples: [
    ["mayfly attach web", "connect; leave with Ctrl-P Ctrl-Q"],
    ["mayfly attach --no-stdin --logs web", "watch it from its beginning"],
    ["mayfly attach --sig-proxy=false web", "watch it; Ctrl-C leaves it alone"],
  ],
  async run({ options, operands, global }) {
    const [ref = ""] = operands;
    const vm = await openClient(global).vms.get(ref);
    const path = `/v1/vms/${encodeURIComponent(vm.id)}/attach`;
    const stdin = !options["no-stdin"];
    const transport = openTransport(global);
    const open: Parameters<typeof runAttached>[0] = async (events) => {
      const session = await openSession(transport, path, { type: "attach", stdin, logs: options.logs }, events);
      if (vm.terminal) {
        const { rows, columns } = currentTerminalSize();
        session.resize(rows, columns);
      }
      return session;
    };
    return runAttached(open, {
      stdin,
      terminal: vm.terminal,
      detachKeys: parseDetachKeys(options["detach-keys"] ?? DETACH_KEYS),
      timeoutMs: undefined,
      passSignals: passesSignals(options["sig-proxy"] ?? "true"),
      removedWhenLeft: false,
    });
  },
});

/** @throws MayflyError `invalid_argument`. */
function passesSignals(text: string): boolean {
  if (text === "true" || text === "false") return text === "true";
  throw usageError("mayfly attach", `--sig-proxy is ${JSON.stringify(text)}, not true or false`);
}
