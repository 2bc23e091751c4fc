/** Which accelerator is chosen here, and why; and that QEMU starts under KVM through the launcher where KVM lets it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chownSync, closeSync, mkdirSync, openSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chooseQemu } from "../../src/engine/host.ts";
import { planQemu } from "../../src/engine/plan.ts";
import { listenUnix } from "../../src/sys/libc.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, hostArtifacts, newDirectory } from "../support/engine-host.ts";
import { FLAT_GUEST, FLAT_GUEST_SAYS } from "../support/flat-guest.ts";

const kvmProblem = (() => {
  try {
    closeSync(openSync("/dev/kvm", "r+"));
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
})();

/** A VM's own uid and gid. */
const UID = 900_099;

/** Runs the flat guest with the machine that is shipped, through the launcher. @returns what it printed and QEMU's words. */
async function runFlatGuest(accelerator: "kvm" | "tcg"): Promise<{ console: string; said: string }> {
  const artifacts = hostArtifacts();
  const qemu = chooseQemu(artifacts.qemu, accelerator);
  if (qemu === undefined) throw new Error(`no QEMU for ${accelerator}`);
  const directory = newDirectory(accelerator);
  const [memoryPath, consolePath] = [join(directory, "memory"), join(directory, "console")];
  writeFileSync(join(directory, "bios"), FLAT_GUEST);
  for (const path of [memoryPath, consolePath]) {
    writeFileSync(path, "");
    chownSync(path, UID, UID);
  }
  truncateSync(memoryPath, 128 << 20);
  const { command, env } = planQemu({
    ...{ artifacts, qemu, accelerator, cpuModel: "qemu64", shape: { memoryMiB: 128, vcpus: 1 } },
    ...{ memoryPath, memoryMode: "shared", uid: UID, gid: UID, procsFiles: [], disks: {}, consolePath },
    boot: { kernelPath: "", initramfsPath: "", commandLine: "" },
  });
  const bios = [...command.slice(0, command.indexOf("-kernel")), "-bios", join(directory, "bios")];
  // Sockets that nobody connects to, in the places of QMP's and the agent's.
  const listeners = ["qmp", "agent"].map((name) => listenUnix(join(directory, name), 1));
  const kvm = accelerator === "kvm" ? [openSync("/dev/kvm", "r+")] : [];
  const nothing = openSync("/dev/null", "r");
  const fds = [...listeners, nothing, ...kvm];
  const child = Bun.spawn(bios, { env, stdio: ["ignore", "pipe", "pipe", ...fds] });
  const printed = () => readFileSync(consolePath, "latin1");
  const deadline = soon(10_000);
  while (child.exitCode === null && deadline.remainingMs > 0 && printed() !== FLAT_GUEST_SAYS) await Bun.sleep(5);
  child.kill("SIGKILL");
  await child.exited;
  for (const fd of fds) closeSync(fd);
  return { console: printed(), said: await new Response(child.stderr).text() };
}

describeVms("the accelerator", () => {
  let vms: TestEngine;
  let openMs: number;
  const directories = { stateDir: "", runDir: "" };

  beforeAll(async () => {
    const root = newDirectory("probe");
    Object.assign(directories, { stateDir: join(root, "state"), runDir: join(root, "run") });
    mkdirSync(directories.stateDir, { mode: 0o711 });
    const startedMs = performance.now();
    vms = await TestEngine.openProbing(directories);
    openMs = performance.now() - startedMs;
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());

  test("is KVM only where a guest has run under it, and the reason is told", () => {
    const { accelerator, acceleratorReason } = vms.engine.info();
    if (accelerator === "kvm") {
      expect(acceleratorReason).toMatch(/^a guest booted under it in \d+ ms$/);
      return;
    }
    expect(acceleratorReason).toStartWith("software emulation, since KVM cannot be used: ");
    if (kvmProblem !== undefined) expect(acceleratorReason).toContain("/dev/kvm");
    else expect(acceleratorReason).toContain("/dev/kvm opens, but a guest does not run");
    // What keeps KVM from being used is KVM, not our own files.
    expect(acceleratorReason).not.toContain("Could not open");
    expect(acceleratorReason).not.toContain("ermission denied");
  });

  test("is remembered", async () => {
    const before = vms.engine.info();
    await vms.close();
    const startedMs = performance.now();
    vms = await TestEngine.openProbing(directories);
    expect(vms.engine.info().acceleratorReason).toBe(before.acceleratorReason);
    expect(performance.now() - startedMs).toBeLessThan(Math.max(1_000, openMs));
  });

  test("that was chosen runs VMs", async () => {
    expect((await vms.run(["echo", "runs"])).stdout).toBe("runs\n");
    const [template] = vms.engine.listTemplates();
    expect(template?.fingerprint["accelerator"]).toBe(vms.engine.info().accelerator);
    expect((await vms.engine.verifyTemplate(template?.id ?? "", soon())).ok).toBe(true);
  });

  test("TCG runs a flat guest in the machine that is shipped", async () => {
    expect(await runFlatGuest("tcg")).toMatchObject({ console: FLAT_GUEST_SAYS });
  });

  test.skipIf(kvmProblem !== undefined)(
    `KVM runs a flat guest through the launcher, without rights of root${kvmProblem === undefined ? "" : ` (${kvmProblem})`}`,
    async () => {
      const { console, said } = await runFlatGuest("kvm");
      expect({ console, said: /failed|denied/.exec(said)?.[0] }).toEqual({ console: FLAT_GUEST_SAYS, said: undefined });
    },
  );
});
