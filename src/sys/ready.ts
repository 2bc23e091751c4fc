/** Telling whoever started this process that it is ready: a line on a descriptor, and systemd's notification socket. */
import { closeSync, writeSync } from "node:fs";
import { notifySystemd } from "./activation.ts";

/** What can be told. */
export interface ReadyReport {
  ready(address: string): void;
  failed(reason: string): void;
  stopping(): void;
}

/**
 * Reports on descriptor `fd`, if there is one, with the line `ready ADDRESS`; then it is closed. A starter that reads end of file
 * without a byte knows that the start has failed. Systemd is told where NOTIFY_SOCKET names it.
 */
export function reportReady(fd: number | undefined): ReadyReport {
  const end = (line: string) => {
    if (fd === undefined) return;
    try {
      if (line !== "") writeSync(fd, line);
      closeSync(fd);
    } catch {
      // The starter has gone; nobody waits for the line.
    }
  };
  return {
    ready(address) {
      end(`ready ${address}\n`);
      notifySystemd("READY=1");
    },
    failed(reason) {
      end("");
      notifySystemd(`STATUS=Cannot start: ${reason.replaceAll("\n", " ")}`);
    },
    stopping: () => notifySystemd("STOPPING=1"),
  };
}
