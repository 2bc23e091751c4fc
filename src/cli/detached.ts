/** `mayfly run -d`: the VM is made by one request, and goes on without us. */
import type { CreateVmRequest, Vm } from "../contract/api.ts";
import { print } from "../sys/standard-io.ts";
import { openClient } from "./client.ts";
import type { GlobalOptions } from "./specification.ts";

/** Starts the VM and prints its id, or with `--json` all of it. @returns exit code 0. */
export async function createDetached(global: GlobalOptions, request: CreateVmRequest): Promise<number> {
  const vm: Vm = await openClient(global).vms.create(request);
  await print(global.json ? `${JSON.stringify(vm, undefined, 2)}\n` : `${vm.id}\n`);
  return 0;
}
