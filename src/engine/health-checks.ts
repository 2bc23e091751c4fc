/** Health checks of all VMs that have one: run in the guest, recorded and told when something changes. */
import type { ExecSpec } from "../agent/requests.ts";
import type { Health } from "../contract/container.ts";
import type { Clock } from "../sys/clock.ts";
import { Deadline } from "../sys/deadline.ts";
import { LIMITS_MS } from "./config.ts";
import { containerExec } from "./container-plan.ts";
import type { Events } from "./events.ts";
import { baseSpec } from "./exec-spec.ts";
import { type HealthPlan, NO_EXIT_CODE, OUTPUT_LIMIT_BYTES } from "./health.ts";
import { type CheckEnd, HealthWatch } from "./health-watch.ts";
import type { Metrics } from "./metrics.ts";
import type { VmRecord } from "./records.ts";
import type { RunningVm } from "./running-vm.ts";

const SIGKILL = 9;
const SIGNAL_BASE = 128;
/** A check that prints more is ended: nobody reads it, and it costs the daemon's time. */
const FLOOD_BYTES = 1 << 20;

/** Where the records are. */
export interface HealthRecords {
  record(id: string): VmRecord | undefined;
  update(record: VmRecord): void;
}

/** The watches of VMs with a check; others cost nothing. */
export class HealthChecks {
  readonly #watches = new Map<string, HealthWatch>();
  /** Whether a VM is paused for being idle. */
  isResting: (id: string) => boolean = () => false;

  constructor(
    private readonly records: HealthRecords,
    private readonly clock: Clock,
    private readonly events: Events,
    private readonly metrics: Metrics,
  ) {}

  /** Begins to check a VM whose main process runs, if it has a check; from now on its health is as its record has it. */
  begin(running: RunningVm): void {
    this.end(running.id);
    const record = this.records.record(running.id);
    if (record?.health === undefined || record.health === null || record.vm.health === null) return;
    const { vm, health: plan } = record;
    const spec = checkSpec(record, plan);
    const checked = {
      sinceStartMs: vm.startedAt === null ? 0 : Math.max(0, Date.now() - Date.parse(vm.startedAt)),
      health: record.vm.health,
      isResting: () => this.isResting(running.id),
      check: (signal: AbortSignal) => runCheck(running, spec, signal),
      tell: (health: Health, end: CheckEnd) => this.#tell(running.id, health, end),
    };
    this.#watches.set(running.id, new HealthWatch(checked, plan, this.clock));
  }

  /** No more checks of a VM. */
  end(id: string): void {
    this.#watches.get(id)?.stop();
    this.#watches.delete(id);
  }

  /** No more checks of any: the next daemon goes on. */
  letGo(): void {
    for (const watch of this.#watches.values()) watch.stop();
    this.#watches.clear();
  }

  /** Whoever is as healthy as before, and says the same, costs no write. */
  #tell(id: string, health: Health, { exitCode }: CheckEnd): void {
    this.metrics.checked(exitCode === 0 ? "passed" : exitCode === NO_EXIT_CODE ? "not_done" : "failed");
    const record = this.records.record(id);
    if (record === undefined || record.vm.health === null) return;
    const before = record.vm.health;
    if (JSON.stringify(before) === JSON.stringify(health)) return;
    this.records.update({ ...record, vm: { ...record.vm, health } });
    if (before.status === health.status) return;
    const { status, failingStreak } = health;
    this.events.emit("vm.health", id, record.vm.name, { status, failingStreak, exitCode });
  }
}

/** A check runs as the container's user with its environment, as exec does. */
function checkSpec({ vm, container }: VmRecord, plan: HealthPlan): ExecSpec {
  if (container === null) return baseSpec({}, plan.command, true);
  const { defaults, user } = container;
  return { ...containerExec(defaults, user, vm.hostname, {}), argv: plan.command, killTree: true };
}

/** Runs a check to its end, or to the signal, at which it is killed with its tree. */
async function runCheck(running: RunningVm, spec: ExecSpec, signal: AbortSignal): Promise<CheckEnd> {
  const output = new FirstBytes(OUTPUT_LIMIT_BYTES);
  const kill = () => void process.signal(SIGKILL, true, Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  const take = (_channel: 2 | 3, chunk: Uint8Array) => {
    const before = output.seen;
    output.add(chunk);
    if (before <= FLOOD_BYTES && output.seen > FLOOD_BYTES) kill();
  };
  while (running.standing !== undefined) await running.standing;
  const process = running.agent.execTransient(spec, take, Deadline.after(LIMITS_MS.request));
  signal.addEventListener("abort", kill, { once: true });
  try {
    const { code, signal: endedBy } = await process.exited;
    if (output.seen > FLOOD_BYTES) return { exitCode: NO_EXIT_CODE, output: "The check printed more than 1 MiB" };
    return { exitCode: code ?? SIGNAL_BASE + (endedBy ?? 0), output: output.text };
  } finally {
    signal.removeEventListener("abort", kill);
    process.release(Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  }
}

/** The beginning of an output. */
class FirstBytes {
  readonly #parts: Buffer[] = [];
  /** Bytes that came, kept or not. */
  seen = 0;

  constructor(private readonly limitBytes: number) {}

  add(chunk: Uint8Array): void {
    const room = this.limitBytes - this.seen;
    if (room > 0) this.#parts.push(Buffer.from(chunk.slice(0, room)));
    this.seen += chunk.length;
  }

  get text(): string {
    return Buffer.concat(this.#parts).toString("utf8");
  }
}
