/** From a request to a running VM: prepared (`preparation.ts`), admitted, its disks ready; then the clone, and its main process on its way. */
import type { CreateVmRequest, Vm } from "../contract/api.ts";
import { nowMs } from "../sys/deadline.ts";
import type { EngineParts } from "./engine.ts";
import type { Gate } from "./gate.ts";
import { Holdings } from "./holdings.ts";
import type { OutputSink, ProcessSession, ProgressOptions } from "./interface.ts";
import { newVm } from "./new-vm.ts";
import type { Pool } from "./pool.ts";
import { prepare } from "./preparation.ts";
import { startClone } from "./start.ts";
import { withSizes } from "./vm-disks.ts";
import type { Launch } from "./vms.ts";

/**
 * Starts a VM, and with a command its main process.
 * @throws whatever the request or the host lack; nothing is left of the VM then.
 */
export async function createVm(
  parts: EngineParts,
  gate: Gate,
  request: CreateVmRequest,
  options: ProgressOptions & { sink?: OutputSink },
): Promise<{ vm: Vm; process: ProcessSession | undefined }> {
  const startedMs = nowMs();
  const { host, templates, vms, volumes } = parts;
  const prepared = await prepare(parts, request, options);
  const name = vms.name(request.name);
  const vm = newVm(request, { ...prepared, name, ports: [] });
  const holdings = new Holdings({
    disks: prepared.rootDisk === undefined ? {} : { root: prepared.rootDisk },
    volumes: [],
  });
  vms.admit(vm);
  let pool: Pool | undefined;
  const start = async () => {
    const own = await volumes.disks.prepare(vm, request, options.deadline.signal);
    holdings.addDisks(own);
    const template = await prepared.template();
    templates.touch(template);
    pool = parts.pools.of(template);
    const context = { host, gate, pool: request.pool === false ? undefined : pool };
    const guest = prepared.guest(vm.hostname);
    const clone = {
      ...guest,
      container: withSizes(guest.container, own.grows),
      hostname: vm.hostname,
      sizes: prepared.sizes,
      disks: holdings.record.disks,
      fills: own.fills,
    };
    const started = await startClone(context, template, clone, options.deadline, startedMs).catch(async (error) => {
      await templates.discardIfCorrupt(template, error);
      throw error;
    });
    await volumes.markUsed(own.fills.map(({ volume }) => volume));
    return started;
  };
  const launch: Launch = {
    start,
    main: prepared.main(vm.hostname),
    timeoutMs: request.timeoutMs,
    container: prepared.plan === undefined ? null : { defaults: prepared.plan.defaults, user: prepared.plan.user },
    holdings,
  };
  try {
    return await vms.start(vm, launch, options.sink, options.deadline);
  } finally {
    // Spawning takes milliseconds of this thread: only now, with the command on its way, is there time for it.
    pool?.refill();
  }
}
