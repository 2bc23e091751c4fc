/**
 * The peer `boot`: the same QEMU, kernel, initramfs and agent without a parent. From spawning QEMU on empty memory to the agent's
 * answer with an identity applied (ready), and to the first byte of `echo hi` (first output).
 */
import type { Accelerator, HostArtifacts } from "../src/contract/machine.ts";
import { bootParent, builderUid } from "../src/engine/build.ts";
import { LIMITS_MS } from "../src/engine/config.ts";
import { baseSpec } from "../src/engine/exec-spec.ts";
import { fingerprintFor, tenantGid } from "../src/engine/host.ts";
import { identityRequest, newIdentity } from "../src/engine/identity.ts";
import { DEFAULT_SHAPE } from "../src/engine/pools.ts";
import { fingerprintHash } from "../src/machine/fingerprint.ts";
import { Deadline, nowMs } from "../src/sys/deadline.ts";
import { newId } from "../src/sys/ids.ts";
import { TemplateStore, type TemplateWorkspace } from "../src/template/store.ts";
import { ECHO } from "./measured-run.ts";
import { type OwnHost, openOwnHost } from "./own-host.ts";

/** What a cold boot took, in milliseconds. */
export interface ColdBootTimes {
  readyMs: number;
  firstOutputMs: number;
}

/** Thrown so that nothing of the booted guest is published. */
class NotPublished extends Error {}

/** Boots guests in a directory of its own. */
export class ColdBoots implements Disposable {
  private constructor(
    private readonly host: OwnHost,
    private readonly store: TemplateStore,
  ) {}

  /** @param directory an empty one, traversable for QEMU's user. */
  static async open(directory: string, artifacts: HostArtifacts, accelerator: Accelerator): Promise<ColdBoots> {
    const host = await openOwnHost(directory, artifacts, accelerator, "bench");
    return new ColdBoots(host, new TemplateStore(directory));
  }

  /** Boots one guest, runs `echo hi` in it and ends it. @throws `boot_failed`, `cancelled`. */
  async boot(signal: AbortSignal): Promise<ColdBootTimes> {
    const fingerprint = fingerprintFor(this.host, DEFAULT_SHAPE);
    const parts = { fingerprint, fingerprintHash: fingerprintHash(fingerprint), gid: tenantGid(this.host) };
    let times: ColdBootTimes | undefined;
    try {
      await this.store.publish({ id: newId("tpl"), ownerUid: builderUid(this.host), ...parts }, async (workspace) => {
        times = await this.#bootOnce(workspace, Deadline.after(LIMITS_MS.boot, signal));
        throw new NotPublished();
      });
    } catch (error) {
      if (!(error instanceof NotPublished)) throw error;
    }
    if (times === undefined) throw new Error("a cold boot ended without its times");
    return times;
  }

  async #bootOnce(workspace: TemplateWorkspace, deadline: Deadline): Promise<ColdBootTimes> {
    const startedMs = nowMs();
    await using parent = await bootParent(this.host, DEFAULT_SHAPE, workspace, deadline);
    await parent.agent.identity(identityRequest(newIdentity("boot")), deadline);
    const readyMs = nowMs() - startedMs;
    const first = Promise.withResolvers<number>();
    const took = () => first.resolve(nowMs() - startedMs);
    const process = parent.agent.exec(baseSpec({}, ECHO, true), took, deadline);
    process.exited.then(() => first.reject(new Error("the first command printed nothing")), first.reject);
    return { readyMs, firstOutputMs: await parent.qemu.untilExit(first.promise, "the first output") };
  }

  [Symbol.dispose](): void {
    this.host[Symbol.dispose]();
  }
}
