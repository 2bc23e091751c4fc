/** `mayfly run -d`: the VM is made by one request, and goes on without us. */
import type { CreateVmRequest, Vm } from "../contract/api.ts";
import { print } from "../sys/standard-io.ts";
import { openClient } from "./client.ts";
import { progressLine } from "./progress.ts";
import type { GlobalOptions } from "./specification.ts";

/** Starting takes this long only if the template for it has to be built first. */
const PATIENCE_MS = 1000;

/** Starts the VM and prints its id, or with `--json` all of it. @returns exit code 0. */
export async function createDetached(global: GlobalOptions, request: CreateVmRequest): Promise<number> {
  const line = progressLine();
  const slow = setTimeout(
    () => line.show("starting, which may take a template that has to be built first"),
    PATIENCE_MS,
  );
  const creating: Promise<Vm> = openClient(global).vms.create(request);
  const vm = await creating.finally(() => {
    clearTimeout(slow);
    line.clear();
  });
  await print(global.json ? `${JSON.stringify(vm, undefined, 2)}\n` : `${vm.id}\n`);
  return 0;
}
