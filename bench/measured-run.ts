/** A VM asked for with its first command in one request, and measured as its user sees it. */
import { openSession } from "../src/client/session.ts";
import type { Transport } from "../src/client/transport.ts";
import type { CreateVmRequest, Vm } from "../src/contract/api.ts";
import { MayflyError } from "../src/contract/errors.ts";
import { CLONE_STAGES } from "../src/engine/stages.ts";
import { type Deadline, nowMs } from "../src/sys/deadline.ts";
import type { Samples, Subject } from "./samples.ts";

/** The command of every benchmark. */
export const ECHO = ["echo", "hi"] as const;

/** One VM from request to the end of its command. */
export interface MeasuredRun {
  vm: Vm;
  /** Request received by the daemon to ready, identity applied, as the daemon measures it. */
  readyMs: number;
  /** From before the connection is made to the first byte of output here. */
  firstOutputMs: number;
}

/** Runs `echo hi` in a new VM, which goes with it. @throws MayflyError, also when the command fails or prints nothing. */
export async function runEcho(
  transport: Transport,
  request: Omit<CreateVmRequest, "command">,
  deadline: Deadline,
): Promise<MeasuredRun> {
  const startedMs = nowMs();
  let firstOutputMs: number | undefined;
  const created = { autoRemove: true, ...request, command: [...ECHO] };
  const session = await openSession(
    transport,
    "/v1/vms/run",
    { type: "create", request: created },
    {
      output() {
        firstOutputMs ??= nowMs() - startedMs;
        return undefined;
      },
    },
  );
  session.started.catch(() => undefined);
  const { exitCode } = await deadline.race(session.exited, "the end of a measured command");
  const vm = await session.started;
  const { readyMs } = vm.clone;
  if (exitCode === 0 && firstOutputMs !== undefined && readyMs !== null) return { vm, readyMs, firstOutputMs };
  throw new MayflyError(
    "internal",
    `${ECHO.join(" ")} in VM ${vm.id} ended with code ${exitCode} and gave no figures`,
    {
      vmId: vm.id,
    },
  );
}

/** Keeps what a run has measured: ready, first output, and the stages of the clone path. */
export function addRun(samples: Samples, subject: Subject, run: MeasuredRun): void {
  samples.add(subject, "ready", "ms", run.readyMs);
  samples.add(subject, "first-output", "ms", run.firstOutputMs);
  for (const stage of CLONE_STAGES) {
    const stageMs = run.vm.clone.stages[stage];
    if (stageMs !== undefined) samples.add(subject, `stage-${stage}`, "ms", stageMs);
  }
}
