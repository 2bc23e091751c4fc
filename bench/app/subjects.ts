/** The subjects of the scenario `app` that are Mayfly's: the service in a VM to its first answer, and `echo hi` on an image and without. */
import type { Client } from "../../src/client/client.ts";
import type { CreateVmRequest, Vm } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { CLONE_STAGES } from "../../src/engine/stages.ts";
import { Deadline, nowMs } from "../../src/sys/deadline.ts";
import { addRun, runEcho } from "../measured-run.ts";
import type { OwnDaemon } from "../own-daemon.ts";
import { pause } from "../pace.ts";
import type { Samples, Subject } from "../samples.ts";
import type { Taker } from "../turns.ts";
import { firstAnswer, freePort } from "./first-http.ts";
import type { Pages } from "./pages.ts";
import { SERVICE_PORT } from "./recipes.ts";

const LIMIT_MS = 120_000;
/** After its pool has become smaller. */
const SETTLED_MS = 200;

/** What the subjects work with. */
export interface AppBench {
  signal: AbortSignal;
  daemon: OwnDaemon;
  /** Image of the service in the daemon's store, and memory for it. */
  service: { image: string; memoryBytes: number };
  /** Image of nothing but busybox, for `echo hi`. */
  busybox: string;
  /** The service's warmed template. */
  template: string;
  /** Its pool. */
  pool: { blocked: number; warm: number };
  pages: Pages;
}

/** All of them. */
export function vmTakers(bench: AppBench): Taker[] {
  const { service, busybox, template } = bench;
  return [
    serviceTaker(bench, "run", { ...service, pool: false }),
    serviceTaker(bench, "warm", { template }, "warm"),
    copyTaker(bench),
    serviceTaker(bench, "warm-cold", { template, pool: false }),
    echoTaker(bench, "base-echo", {}),
    echoTaker(bench, "image-echo", { image: busybox }),
    echoTaker(bench, "base-echo-cold", { pool: false }),
    echoTaker(bench, "image-echo-cold", { image: busybox, pool: false }),
  ];
}

/** @param path the only one that counts, if there is to be but one. */
function serviceTaker(bench: AppBench, subject: Subject, request: CreateVmRequest, path?: Vm["clone"]["path"]): Taker {
  return {
    name: subject,
    async take(samples) {
      const { vm, firstHttpMs } = await serve(bench, request);
      if (path !== undefined && vm.clone.path !== path) {
        throw new MayflyError("pool_exhausted", `Cannot measure ${subject}: the VM came by the path ${vm.clone.path}`);
      }
      samples.add(subject, "first-http", "ms", firstHttpMs);
      addStages(samples, subject, vm);
    },
  };
}

/** A copy of the template's parent, as a request gets it that finds no warm clone. */
function copyTaker(bench: AppBench): Taker {
  const { daemon, signal, template, pool } = bench;
  const { templates } = daemon.client;
  const { take, name } = serviceTaker(bench, "warm-copy", { template }, "copy");
  return {
    name,
    async take(samples) {
      await templates.pool(template, { blocked: 0, warm: 0, parent: true }, { signal });
      await pause(SETTLED_MS, signal);
      try {
        await take(samples);
      } finally {
        await templates.pool(template, pool, { signal });
      }
    },
  };
}

/** Asks for a VM with a published port, and asks that port from the same moment on; the VM is removed afterwards. */
async function serve(bench: AppBench, request: CreateVmRequest): Promise<{ vm: Vm; firstHttpMs: number }> {
  const { vms }: Client = bench.daemon.client;
  const port = freePort();
  const ports = [{ hostIp: "127.0.0.1", hostPort: port, guestPort: SERVICE_PORT }];
  const failed = new AbortController();
  const deadline = Deadline.after(LIMIT_MS, AbortSignal.any([bench.signal, failed.signal]));
  const startedMs = nowMs();
  const created = vms.create({ ...request, ports }, { signal: bench.signal });
  created.catch(() => failed.abort());
  try {
    const { atMs, body } = await firstAnswer(port, deadline);
    const vm = await created;
    bench.pages.check(body, vm.hostname);
    return { vm, firstHttpMs: atMs - startedMs };
  } catch (error) {
    // What the request failed with says more than that there was no answer.
    if (failed.signal.aborted && !bench.signal.aborted) await created;
    throw error;
  } finally {
    await created.then(
      ({ id }) => vms.remove(id, { force: true }),
      () => undefined,
    );
  }
}

function addStages(samples: Samples, subject: Subject, { clone }: Vm): void {
  if (clone.readyMs !== null) samples.add(subject, "ready", "ms", clone.readyMs);
  for (const stage of CLONE_STAGES) {
    const stageMs = clone.stages[stage];
    if (stageMs !== undefined) samples.add(subject, `stage-${stage}`, "ms", stageMs);
  }
}

function echoTaker({ daemon, signal }: AppBench, subject: Subject, request: CreateVmRequest): Taker {
  return {
    name: subject,
    async take(samples) {
      addRun(samples, subject, await runEcho(daemon.transport, request, Deadline.after(LIMIT_MS, signal)));
    },
  };
}
