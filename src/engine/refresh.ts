/** Memory that a VM does not use goes back to the host. */
import type { RefreshResult } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import type { EngineParts } from "./engine.ts";

/** @throws `not_capturable`. */
export async function refreshVm({ vms }: EngineParts, ref: string, _deadline: Deadline): Promise<RefreshResult> {
  const { name } = vms.get(vms.withMain(ref).id);
  throw new MayflyError("not_capturable", `Cannot refresh VM ${name}: this build does not know how`);
}
