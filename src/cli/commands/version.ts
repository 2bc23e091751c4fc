/** `mayfly version`. */
import { version } from "../../../package.json";
import { clientOver } from "../../client/client.ts";
import { bunTransport } from "../../client/transport-bun.ts";
import { MayflyError } from "../../contract/errors.ts";
import { daemonSocketPath, runDirectory } from "../../sys/directories.ts";
import { print } from "../../sys/standard-io.ts";
import { parseHost } from "../connection.ts";
import { formatFacts, printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Show the versions of this client and of the daemon, if it is there; it is not started for this.",
  operands: [],
  options: {},
  examples: [["mayfly version --json", "for a program"]],
  async run({ global }) {
    const address = parseHost(global.host) ?? { socketPath: daemonSocketPath(runDirectory()) };
    const client = clientOver(bunTransport({ address, token: process.env["MAYFLY_TOKEN"] || undefined }));
    const daemon = await client.system.version().catch((error: unknown) => {
      if (error instanceof MayflyError && error.code === "daemon_unreachable") return undefined;
      throw error;
    });
    if (global.json) await printJson({ client: { version }, daemon: daemon ?? null });
    else {
      const shown =
        daemon === undefined ? "not running" : `${daemon.version} (interface ${daemon.api}, pid ${daemon.pid})`;
      await print(
        formatFacts([
          ["Mayfly", version],
          ["Daemon", shown],
        ]),
      );
    }
    return 0;
  },
});
