/** For tests of disks: clones on files of the test's choice, and commands in the base guest. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Clone, type CloneRequest, cloneFromTemplate } from "../../src/engine/clone.ts";
import { CONFIG_DEFAULTS } from "../../src/engine/config.ts";
import { grantDisks } from "../../src/engine/disks.ts";
import type { Host } from "../../src/engine/host.ts";
import { newIdentity } from "../../src/engine/identity.ts";
import { groupName } from "../../src/engine/open.ts";
import { hostTscKHz, hostWith } from "../../src/engine/probe.ts";
import { Records } from "../../src/engine/records.ts";
import { Slots } from "../../src/engine/slots.ts";
import { StageClock } from "../../src/engine/stages.ts";
import type { DiskFiles } from "../../src/machine/devices/disk.ts";
import { type LoadedTemplate, TemplateStore } from "../../src/template/store.ts";
import { soon } from "./engine.ts";
import { hostArtifacts, newDirectory, noteGroup, plantTemplate } from "./engine-host.ts";

/** A clone of the base guest, which has its disks as /dev/vda to /dev/vde. */
export class DiskClone implements AsyncDisposable {
  constructor(readonly clone: Clone) {}

  /** A shell script in the guest. @returns what it printed, trimmed. @throws when it fails. */
  async shell(script: string): Promise<string> {
    const { agent } = this.clone;
    const output: Buffer[] = [];
    const spec = { argv: ["/bin/sh", "-ec", script], env: ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"], killTree: true };
    const process = agent.exec(spec, (_channel, chunk) => void output.push(Buffer.from(chunk)), soon());
    const { code } = await soon().race(process.exited, "the end of the script");
    await process.release(soon());
    const text = Buffer.concat(output).toString().trim();
    if (code !== 0) throw new Error(`the script ended with ${code}: ${text}`);
    return text;
  }

  /** QEMU's session. */
  qmp() {
    return this.clone.qemu.qmp(soon());
  }

  /** Gives files to its QEMU, for disks that are attached later. */
  grant(disks: DiskFiles): void {
    grantDisks(this.clone.qemu.slot, disks);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.clone.agent.close();
    await this.clone.qemu.kill();
  }
}

/** A request for a clone of the base guest. */
export function requestOn(disks: DiskFiles): CloneRequest {
  return {
    identity: newIdentity("disks"),
    disks,
    container: undefined,
    limits: undefined,
    files: [],
    fills: [],
    hooks: undefined,
  };
}

/** A host with a template, on which clones are started without an engine. */
export class DiskHost implements Disposable {
  private constructor(
    readonly host: Host,
    readonly template: LoadedTemplate,
  ) {}

  static async open(): Promise<DiskHost> {
    const root = newDirectory("disks");
    const [stateDir, runDir] = [join(root, "state"), join(root, "run")];
    for (const path of [stateDir, runDir]) mkdirSync(path, { mode: 0o711 });
    await plantTemplate(stateDir);
    noteGroup(stateDir);
    const config = { ...CONFIG_DEFAULTS, stateDir, runDir, artifacts: hostArtifacts(), accelerator: "tcg" as const };
    const records = new Records(join(stateDir, "mayfly.db"));
    const slots = new Slots(runDir, config.uidBase, groupName(stateDir));
    const parts = { config, slots, records, tscKHz: await hostTscKHz(records) };
    const host = hostWith(parts, { accelerator: "tcg", usable: true, reason: "for tests" });
    const store = new TemplateStore(stateDir);
    const [id = ""] = await store.list();
    return new DiskHost(host, await store.load(id));
  }

  get stateDir(): string {
    return this.host.config.stateDir;
  }

  /** Starts a clone on these disks. */
  async start(disks: DiskFiles = {}): Promise<DiskClone> {
    const clock = new StageClock(performance.now());
    const request = requestOn(disks);
    const started = new DiskClone(await cloneFromTemplate(this.host, this.template, request, undefined, clock, soon()));
    await started.shell("mkdir -p /m");
    return started;
  }

  [Symbol.dispose](): void {
    this.host.slots.close();
    this.host.records[Symbol.dispose]();
  }
}
