/** Which accelerator works here: `/dev/kvm` that opens proves nothing, so a guest is booted. */
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import type { Accelerator } from "../contract/machine.ts";
import { fingerprintHash } from "../machine/fingerprint.ts";
import { Deadline } from "../sys/deadline.ts";
import { newId } from "../sys/ids.ts";
import { temporaryDirectory } from "../sys/paths.ts";
import { bootId } from "../sys/process.ts";
import { deviceProblem, removeTree, setMode } from "../sys/store-files.ts";
import { measureTscKHz } from "../sys/tsc.ts";
import { TemplateStore } from "../template/store.ts";
import { bootParent, builderUid } from "./build.ts";
import { type EngineConfig, LIMITS_MS } from "./config.ts";
import { chooseQemu, cpuModelFor, fingerprintFor, type Host, type HostParts, tenantGid } from "./host.ts";
import { Records } from "./records.ts";
import { Slots } from "./slots.ts";

const PROBE_SHAPE = { memoryMiB: 128, vcpus: 1 };
const NOT_PUBLISHED = new MayflyError("cancelled", "The probe is over");

/** What a probe found. */
export interface AcceleratorProbe {
  accelerator: Accelerator;
  usable: boolean;
  /** In a sentence; says why not, or how it was found out. */
  reason: string;
}

/** The host with an accelerator chosen, or @throws `qemu_not_found` when no QEMU runs with it. */
export function hostWith(parts: HostParts, probe: AcceleratorProbe): Host {
  const { accelerator, reason } = probe;
  const qemu = chooseQemu(parts.config.artifacts.qemu, accelerator);
  if (qemu === undefined) {
    throw new MayflyError("qemu_not_found", `There is no QEMU that can use ${accelerator}`, {
      details: { remedy: "mayfly setup" },
    });
  }
  return { ...parts, accelerator, acceleratorReason: reason, qemu, cpuModel: cpuModelFor(accelerator) };
}

/** The rate of the host's time stamp counter, measured once for each boot of the host: it is part of fingerprints. */
export async function hostTscKHz(records: Records): Promise<number> {
  const [boot, known] = records.setting("tsc-khz")?.split(" ") ?? [];
  if (boot === bootId()) return Number(known);
  const measured = await measureTscKHz();
  records.putSetting("tsc-khz", `${bootId()} ${measured}`);
  return measured;
}

/** Chooses KVM if a guest has run under it (remembered until the host boots again or one of the artifacts changes), else TCG. */
export async function chooseAccelerator(parts: HostParts): Promise<AcceleratorProbe> {
  const { config, records } = parts;
  if (config.accelerator !== undefined) {
    return { accelerator: config.accelerator, usable: true, reason: "chosen by configuration" };
  }
  const { kernel, initramfs, launcher } = config.artifacts;
  const tried = [
    bootId(),
    kernel.sha256,
    initramfs.sha256,
    launcher.path,
    chooseQemu(config.artifacts.qemu, "kvm")?.path,
  ];
  const key = tried.join(" ");
  const known = readVerdict(records.setting("kvm-probe"), key);
  const kvm = known ?? (await probeKvm(parts));
  if (known === undefined) records.putSetting("kvm-probe", JSON.stringify({ key, probe: kvm }));
  if (kvm.usable) return kvm;
  return { accelerator: "tcg", usable: true, reason: `software emulation, since KVM cannot be used: ${kvm.reason}` };
}

function readVerdict(text: string | undefined, key: string): AcceleratorProbe | undefined {
  if (text === undefined) return undefined;
  const saved: { key: string; probe: AcceleratorProbe } = JSON.parse(text);
  return saved.key === key ? saved.probe : undefined;
}

/** Boots the guest kernel under KVM up to the agent's hello. */
async function probeKvm(parts: HostParts): Promise<AcceleratorProbe> {
  const no = (reason: string): AcceleratorProbe => ({ accelerator: "kvm", usable: false, reason });
  const closed = deviceProblem("/dev/kvm");
  if (closed !== undefined) return no(closed);
  try {
    const ms = await bootOnce(hostWith(parts, { accelerator: "kvm", usable: true, reason: "" }));
    return { accelerator: "kvm", usable: true, reason: `a guest booted under it in ${Math.round(ms)} ms` };
  } catch (error) {
    if (!(error instanceof MayflyError)) throw error;
    return no(`/dev/kvm opens, but a guest does not run: ${error.message}`);
  }
}

/** Boots a guest and ends it. @returns milliseconds to the agent's hello. @throws what booting throws. */
async function bootOnce(host: Host): Promise<number> {
  const directory = await temporaryDirectory("mayfly-probe");
  // QEMU runs as a uid of its own and opens its files by their paths.
  await setMode(directory, 0o711);
  const store = new TemplateStore(directory);
  const fingerprint = fingerprintFor(host, PROBE_SHAPE);
  const parts = { fingerprint, fingerprintHash: fingerprintHash(fingerprint), gid: tenantGid(host) };
  const startedMs = performance.now();
  let bootedMs = 0;
  try {
    await store.publish({ id: newId("tpl"), ownerUid: builderUid(host), ...parts }, async (workspace) => {
      await using _parent = await bootParent(host, PROBE_SHAPE, workspace, Deadline.after(LIMITS_MS.probe));
      bootedMs = performance.now() - startedMs;
      throw NOT_PUBLISHED;
    });
  } catch (error) {
    if (error !== NOT_PUBLISHED) throw error;
  } finally {
    removeTree(directory);
  }
  return bootedMs;
}

/** Probes both accelerators without an engine: for `doctor` on a host where no daemon runs. */
export async function probeAccelerators(config: EngineConfig): Promise<AcceleratorProbe[]> {
  const directory = await temporaryDirectory("mayfly-probe");
  try {
    using records = new Records(join(directory, "mayfly.db"));
    const slots = new Slots(directory, config.uidBase, `mayfly-probe-${process.pid}`);
    const parts = { config, slots, records, tscKHz: await hostTscKHz(records) };
    const kvm = await probeKvm(parts);
    const tcg = await bootOnce(hostWith(parts, { accelerator: "tcg", usable: true, reason: "" })).then(
      (ms): AcceleratorProbe => ({
        accelerator: "tcg",
        usable: true,
        reason: `a guest booted in ${Math.round(ms)} ms`,
      }),
      (error: unknown): AcceleratorProbe => ({ accelerator: "tcg", usable: false, reason: String(error) }),
    );
    slots.close();
    return [kvm, tcg];
  } finally {
    removeTree(directory);
  }
}
