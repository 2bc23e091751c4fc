/** `mayfly stats`. */

import type { Client } from "../../client/client.ts";
import type { Vm, VmStats } from "../../contract/api.ts";
import { MayflyError } from "../../contract/errors.ts";
import { nowMs } from "../../sys/deadline.ts";
import { print } from "../../sys/standard-io.ts";
import { isTerminal } from "../../sys/terminal.ts";
import { openClient } from "../client.ts";
import { shortId } from "../ids.ts";
import { formatTable, printJson, printJsonLine } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

const INTERVAL_MS = 1000;
const CLEAR_SCREEN = "\x1b[H\x1b[2J\x1b[3J";

export const command = defineCommand({
  description: `Show what VMs use: CPU, the memory of what runs inside, and the memory that each VM has to itself on the host (what it does
not share with its template), of that the guest's part and QEMU's own; and the pages of the template that it has mapped. Of memory that is merged
(run --merge) MERGED says how much. Without operands all that run, until it is interrupted.`,
  operands: [{ name: "VM", kind: "vm", many: true, optional: true }],
  options: { "no-stream": { kind: "flag", summary: "Only once" } },
  examples: [
    ["mayfly stats", "all VMs, live"],
    ["mayfly stats --no-stream web", "one VM, once"],
  ],
  async run({ options, operands, global }) {
    const client = openClient(global);
    let before = await sample(client, operands);
    while (true) {
      await nextRound();
      const now = await sample(client, operands);
      const rows = now.stats.map((stats) => ({ ...stats, cpuPercent: cpuPercent(stats, before, now.atMs) }));
      if (options["no-stream"] && global.json) await printJson(rows);
      else if (global.json) for (const row of rows) await printJsonLine(row);
      else await print(`${!options["no-stream"] && isTerminal(1) ? CLEAR_SCREEN : ""}${table(rows)}`);
      if (options["no-stream"]) return 0;
      before = now;
    }
  },
});

interface Sample {
  atMs: number;
  stats: VmStats[];
}

type Row = VmStats & { cpuPercent: number };

async function sample(client: Client, operands: readonly string[]): Promise<Sample> {
  const refs = operands.length > 0 ? operands : (await client.vms.list()).filter(isRunning).map(({ id }) => id);
  const answers = await Promise.all(
    refs.map((ref) => client.vms.stats(ref).catch((error: unknown) => gone(error, operands))),
  );
  return { atMs: nowMs(), stats: answers.filter((answer) => answer !== undefined) };
}

function isRunning({ state }: Vm): boolean {
  return state === "running";
}

/** A VM that ends between two rounds is left out, unless it was asked for by name. */
function gone(error: unknown, operands: readonly string[]): undefined {
  if (operands.length > 0 || !(error instanceof MayflyError)) throw error;
  if (error.kind !== "not_found" && error.kind !== "failed_precondition" && error.kind !== "unavailable") throw error;
}

function cpuPercent(stats: VmStats, before: Sample, atMs: number): number {
  const earlier = before.stats.find(({ id }) => id === stats.id);
  if (earlier === undefined) return 0;
  return Math.round(Math.max(0, (stats.cpuUs - earlier.cpuUs) / (atMs - before.atMs)) * 10) / 100;
}

function nextRound(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
}

function table(rows: readonly Row[]): string {
  return formatTable(
    ["VM ID", "NAME", "CPU %", "GUEST USED / LIMIT", "UNIQUE", "GUEST'S", "QEMU'S", "MERGED", "SHARED", "PIDS"],
    rows.map((row) => [
      shortId(row.id),
      row.name,
      `${row.cpuPercent.toFixed(2)}%`,
      row.guest === null
        ? "paused"
        : `${formatBytes(row.guestUsedMemoryBytes ?? 0)} / ${formatBytes(row.guest.memoryTotalBytes)}`,
      formatBytes(row.uniqueMemoryBytes),
      formatBytes(row.guestUniqueMemoryBytes),
      formatBytes(row.qemuMemoryBytes),
      formatBytes(row.mergedMemoryBytes),
      formatBytes(row.sharedMemoryBytes),
      row.guest === null ? "-" : String(row.guest.workloadPids),
    ]),
  );
}
