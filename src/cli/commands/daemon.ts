/** `mayfly daemon`, also called `mayflyd`. */

import type { EngineOpener } from "../../daemon/main.ts";
import { defineCommand, type OptionSpecs } from "../specification.ts";

const OPTIONS = {
  "state-dir": {
    kind: "value",
    value: "DIR",
    complete: "file",
    summary: "What outlives a reboot (MAYFLY_STATE_DIR, /var/lib/mayfly)",
  },
  "run-dir": {
    kind: "value",
    value: "DIR",
    complete: "file",
    summary: "Sockets and locks (MAYFLY_RUN_DIR, /run/mayfly)",
  },
  socket: {
    kind: "value",
    value: "PATH",
    complete: "file",
    summary: "Unix socket of the REST interface (mayfly.sock in the run directory)",
  },
  listen: { kind: "value", value: "[HOST:]PORT", summary: "A TCP listener besides; needs a token" },
  "token-file": { kind: "value", value: "FILE", complete: "file", summary: "File with the bearer token for TCP" },
  pool: {
    ...{ kind: "value", value: "BLOCKED:WARM[:PARENT]" },
    summary: "Prepared VMs of the default template, such as 2:4",
  },
  accelerator: {
    kind: "value",
    value: "NAME",
    complete: ["kvm", "tcg"],
    summary: "Instead of the one that a probe finds usable",
  },
  profiles: {
    kind: "value",
    value: "LIST",
    summary: "Smaller templates to make beside the pool's, of exec, disk, net, or none (exec,disk)",
  },
  overcommit: {
    kind: "value",
    value: "RATIO",
    summary: "How many times the host's memory VMs could take together, if each took all it may (10)",
  },
  "log-level": {
    kind: "value",
    value: "LEVEL",
    complete: ["error", "warn", "info", "debug"],
    summary: "Least level that is logged (info)",
  },
  "ready-fd": {
    kind: "value",
    value: "FD",
    summary: "Descriptor on which a line tells that the daemon is ready; closed without it when it fails",
  },
} as const satisfies OptionSpecs;

/** The command for a given way to make the engine. */
export function daemonCommand(loadEngine: () => Promise<EngineOpener>) {
  return defineCommand({
    description: `Serve VMs until SIGTERM. Commands start the daemon themselves when it is not there; systemd can start it as well.
VMs go on when the daemon ends, and the next one adopts them.`,
    operands: [],
    options: OPTIONS,
    examples: [
      ["mayfly daemon", "serve on the local socket"],
      ["mayfly daemon --listen 127.0.0.1:7420 --token-file /etc/mayfly/token", "on TCP as well"],
    ],
    async run({ options }) {
      const [{ runDaemon }, { daemonOptions }] = await Promise.all([
        import("../../daemon/main.ts"),
        import("../../daemon/config.ts"),
      ]);
      const flags = Object.keys(OPTIONS).flatMap((name) => {
        const value = options[name as keyof typeof OPTIONS];
        return value === undefined ? [] : [`--${name}=${value}`];
      });
      await runDaemon(daemonOptions(flags, process.env), await loadEngine());
      return 0;
    },
  });
}

/** The command: it serves the engine that set-up's artifacts make. */
export const command = daemonCommand(async () => (await import("../engine.ts")).openLocalEngine);
