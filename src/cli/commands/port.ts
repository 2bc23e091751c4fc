/** `mayfly port`: the ports of the host that lead into a VM. */
import type { PublishedPort } from "../../contract/api.ts";
import { MayflyError } from "../../contract/errors.ts";
import { print, printError } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { publishedAddress } from "../ports.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Show which ports of the host lead to which of a VM's; with a port of the VM only where that is found. Ends with 1 if there is none.",
  operands: [
    { name: "VM", kind: "vm" },
    { name: "PORT[/tcp]", kind: "none", optional: true },
  ],
  options: {},
  examples: [
    ["mayfly port web", "all of them, e.g. 8080/tcp -> 127.0.0.1:8080"],
    ["curl http://$(mayfly port web 8080)/", "ask the service behind one"],
  ],
  async run({ operands, global }) {
    const [ref = "", wanted] = operands;
    const guestPort = wanted === undefined ? undefined : parsePort(wanted);
    const vm = await openClient(global).vms.get(ref);
    const ports = vm.ports.filter((port) => guestPort === undefined || port.guestPort === guestPort);
    const line = (port: PublishedPort) =>
      guestPort === undefined ? `${port.guestPort}/tcp -> ${publishedAddress(port)}` : publishedAddress(port);
    if (global.json) await printJson(ports);
    else await print(ports.map((port) => `${line(port)}\n`).join(""));
    if (ports.length > 0 || global.json) return ports.length === 0 ? 1 : 0;
    await printError(
      guestPort === undefined
        ? `VM ${vm.name} publishes no ports\n`
        : `VM ${vm.name} does not publish port ${guestPort}/tcp\n`,
    );
    return 1;
  },
});

/** @throws MayflyError `invalid_argument`. */
function parsePort(text: string): number {
  const match = /^(\d{1,5})(?:\/tcp)?$/.exec(text);
  const port = Number(match?.[1]);
  if (match !== null && port >= 1 && port <= 65_535) return port;
  throw new MayflyError("invalid_argument", `port: ${JSON.stringify(text)} is no TCP port such as 8080 or 8080/tcp`);
}
