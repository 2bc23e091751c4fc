/**
 * The parent of a template's clones: a warm clone that never runs again, and of whose QEMU copies are made. A copy is a QEMU that stands where its
 * parent stands, in a slot of its own, with the code translated that its parent has translated, all memory shared that neither has written since
 * (docs/adr/0042-clones-from-a-parent.md).
 */
import { type Deadline, pause } from "../sys/deadline.ts";
import { ParentProcess } from "../sys/parent-process.ts";
import { connectedSockets } from "../sys/process.ts";
import type { ApplicationPart } from "../template/application.ts";
import type { ImageFiles } from "../template/process-image.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { copyQemu, type ImageClone, letRun, openAgent, type WarmClone } from "./clone.ts";
import type { Host } from "./host.ts";
import { GIVEN_FDS } from "./plan.ts";
import type { QemuProcess } from "./qemu-process.ts";
import { ResumedMain } from "./resumed-main.ts";

/** Looks at whether QEMU has noticed that nobody is connected any more, in ms. */
const LOOK_MS = 2;

/** A parent, while its QEMU stands still. */
export class ParentVm {
  private constructor(
    private readonly host: Host,
    readonly qemu: QemuProcess,
    private readonly warm: WarmClone,
    /** The main process of its application, and where its output goes on. */
    readonly main: ApplicationPart["main"] | undefined,
    private readonly process: ParentProcess,
  ) {}

  /**
   * Makes a warm clone a parent.
   * @throws `qemu_spawn_failed` where this host does not allow it, or QEMU has what cannot be shared. The clone is of no use then.
   */
  static async of(host: Host, warm: WarmClone, deadline: Deadline): Promise<ParentVm> {
    const { template } = warm;
    const { agent, main } = warm.connect(deadline);
    const { application } = template.manifest;
    const resumed = application && main ? { ...application.main, ...main.process.arrived } : undefined;
    agent.close();
    return ParentVm.#stop(host, warm, resumed, deadline);
  }

  /** Makes a parent of one that has gone on from a process image: it stands where the parent stood that was written down. @throws as {@link of}. */
  static async ofImage(host: Host, clone: ImageClone, deadline: Deadline): Promise<ParentVm> {
    // It greets when the launcher has become it.
    await clone.qemu.qmp(deadline);
    return ParentVm.#stop(host, clone, clone.main, deadline);
  }

  static async #stop(host: Host, warm: WarmClone, main: ParentVm["main"], deadline: Deadline): Promise<ParentVm> {
    const { qemu } = warm;
    await qemu.disconnect();
    while (connectedSockets(qemu.pid) > 0)
      await qemu.untilExit(deadline.race(pause(LOOK_MS), "QEMU to be left alone"), "becoming a parent");
    const process = ParentProcess.stop(host.config.artifacts.launcher.path, qemu.identity, host.slots.uids);
    qemu.isKeptBy(process);
    await process.stopped();
    return new ParentVm(host, qemu, warm, main, process);
  }

  /** Whether it can have no children any more. */
  get isGone(): boolean {
    return this.process.isGone;
  }

  /** Makes a child. @throws `qemu_spawn_failed`, `qemu_exited` (the parent is gone then), `limit_reached`; nothing is left of it. */
  async child(deadline: Deadline): Promise<WarmClone> {
    const { template, memoryPath, root } = this.warm;
    const qemu = await copyQemu(this.host, { process: this.process, slot: this.qemu.slot }, template);
    qemu.qmp(deadline).catch(() => undefined);
    const resume = (until: Deadline) => letRun(qemu, until);
    const connect = (until: Deadline) => {
      const channel = openAgent(qemu, until);
      return { ...channel, main: this.main && new ResumedMain(channel.agent, this.main) };
    };
    return { qemu, template, memoryPath, root, resume, connect };
  }

  get template(): LoadedTemplate {
    return this.warm.template;
  }

  /** Whether it has gone on from a process image, and was not warmed itself. */
  get isOfImage(): boolean {
    return this.warm.memoryPath !== this.template.memoryPath;
  }

  /** Writes a process image of it into files that are open here. @throws as {@link child}. */
  async writeImage({ image, memory }: ImageFiles): Promise<void> {
    await this.process.writeImage(image, memory, GIVEN_FDS);
  }

  /** Ends it; its children go on. */
  async end(): Promise<void> {
    this.process[Symbol.dispose]();
    await this.qemu.kill();
  }
}
