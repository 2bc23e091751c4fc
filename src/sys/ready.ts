/** Telling whoever started this process that it is ready: a line on a descriptor, and systemd's notification socket. */
import { closeSync, writeSync } from "node:fs";
import { notifySystemd } from "./activation.ts";

/** What can be told. */
export interface ReadyReport {
  ready(address: string): void;
  /** @param problem becomes JSON. */
  failed(problem: object): void;
  stopping(): void;
}

/**
 * Reports on descriptor `fd`, if there is one: `ready ADDRESS` or `failed JSON`, one line, then it is closed. A starter that
 * reads end of file without a line knows that the process has died. Systemd is told where NOTIFY_SOCKET names it.
 */
export function reportReady(fd: number | undefined): ReadyReport {
  let left = fd;
  const line = (text: string) => {
    if (left === undefined) return;
    const to = left;
    left = undefined;
    try {
      writeSync(to, `${text}\n`);
      closeSync(to);
    } catch {
      // The starter has gone; nobody waits for the line.
    }
  };
  return {
    ready(address) {
      line(`ready ${address}`);
      notifySystemd("READY=1");
    },
    failed: (problem) => line(`failed ${JSON.stringify(problem)}`),
    stopping: () => notifySystemd("STOPPING=1"),
  };
}
