/** `mayfly exec`: a further command in a running VM. */
import { openSession } from "../../client/session.ts";
import { checkTerminal, runAttached } from "../attached.ts";
import { openTransport } from "../connection.ts";
import { DETACH_KEYS, parseDetachKeys } from "../detach-keys.ts";
import { PROCESS_OPTIONS, processRequest } from "../process-options.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Run a command in a running VM. Options end at the VM: what follows belongs to the command.",
  operands: [
    { name: "VM", kind: "vm" },
    { name: "COMMAND", kind: "command" },
  ],
  options: PROCESS_OPTIONS,
  examples: [
    ["mayfly exec web -- cat /proc/uptime", "run a command"],
    ["mayfly exec -it web sh", "a shell beside what runs there"],
    ["mayfly exec -d web sh -c 'sleep 60; sync'", "leave a command running"],
  ],
  async run({ options, operands, global }) {
    const [vm = "", ...command] = operands;
    checkTerminal(options.interactive && !options.detach, options.tty);
    const request = { ...(await processRequest(options)), command };
    const transport = openTransport(global);
    const path = `/v1/vms/${encodeURIComponent(vm)}/exec`;
    if (options.detach) {
      const session = await openSession(transport, path, { type: "exec", request }, { output: () => undefined });
      await session.started;
      session.close();
      return 0;
    }
    return runAttached((events) => openSession(transport, path, { type: "exec", request }, events), {
      stdin: options.interactive,
      terminal: options.tty,
      detachKeys: parseDetachKeys(options["detach-keys"] ?? DETACH_KEYS),
      timeoutMs: request.timeoutMs,
      passSignals: true,
      removedWhenLeft: false,
    });
  },
});
