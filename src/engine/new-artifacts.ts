/** Another QEMU or kernel is put in force while the engine runs: what is started from now on is made with it, what runs goes on. */
import type { HostArtifacts } from "../contract/machine.ts";
import type { Events } from "./events.ts";
import type { Host } from "./host.ts";
import type { Pools } from "./pools.ts";
import { chooseAccelerator, hostWith } from "./probe.ts";

/** Tells of artifacts that are put in force, until it is disposed; undefined if nothing can tell. */
export type ArtifactsWatch = (onChange: () => void) => Disposable | undefined;

/** What changes with the artifacts. */
export interface ChangingParts {
  host: Host;
  pools: Pools;
  events: Events;
  /** Reads those in force. */
  load: () => Promise<HostArtifacts>;
}

/** Takes artifacts into use, one change after the other. */
export class NewArtifacts {
  #last: Promise<void> = Promise.resolve();

  constructor(private readonly parts: ChangingParts) {}

  /**
   * Reads the artifacts in force and starts VMs with them from now on. Templates that were made with others do not fit any more: pools of
   * these end, and the default template is built. Artifacts that cannot be used are told as an event, and those of before stay.
   */
  take(): Promise<void> {
    this.#last = this.#last.then(() => this.#take());
    return this.#last;
  }

  async #take(): Promise<void> {
    const { host, pools, events, load } = this.parts;
    try {
      const artifacts = await load();
      const parts = { ...host, config: { ...host.config, artifacts } };
      // What made KVM unusable is the host's, and is looked at again at the next start. Where it is used, a guest is booted with what is new.
      const { accelerator, acceleratorReason: reason } = host;
      const same = { accelerator, usable: true, reason };
      const found = accelerator === "tcg" ? same : await chooseAccelerator(parts);
      Object.assign(host, hostWith(parts, found));
      events.emit("artifacts.changed", "host", undefined, {
        qemu: `${host.qemu.version} (${host.qemu.kind})`,
        kernel: artifacts.kernel.version,
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      events.emit("artifacts.refused", "host", undefined, { reason });
      return;
    }
    await pools.renew();
  }
}
