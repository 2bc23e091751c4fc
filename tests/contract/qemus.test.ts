/** VMs on a lean QEMU where one has been built, and an engine to which another QEMU is given while VMs run. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { Vm } from "../../src/contract/api.ts";
import type { HostArtifacts } from "../../src/contract/machine.ts";
import type { Artifacts, QemuArtifact } from "../../src/setup/artifacts.ts";
import { describeQemu } from "../../src/setup/qemu-binary.ts";
import { findLean, isAsBuilt, librariesOf } from "../../src/setup/qemu-store.ts";
import { stateDirectory } from "../../src/sys/directories.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, hostArtifacts, newDirectory } from "../support/engine-host.ts";

const lean = await findLean(stateDirectory(), "lean").catch((error: unknown) => String(error));

function withFirst(first: QemuArtifact): Artifacts {
  const artifacts = hostArtifacts();
  return { ...artifacts, qemu: [first, ...artifacts.qemu.filter(({ path }) => path !== first.path)] };
}

function programOf(vm: { pid: number | null }): string {
  return readlinkSync(`/proc/${vm.pid}/exe`);
}

const describeLean: typeof describe = typeof lean === "string" ? describe.skip : describe;

describeVms("QEMUs", () => {
  describeLean(typeof lean === "string" ? `a lean one (${lean})` : "a lean one", () => {
    const path = typeof lean === "string" ? "" : lean.path;
    let vms: TestEngine;

    beforeAll(async () => {
      const artifacts = withFirst(await describeQemu(path, "built"));
      vms = await TestEngine.open({ artifacts, templates: [], pool: { blocked: 1, warm: 1 } });
    }, 120_000);
    afterAll(() => vms?.[Symbol.asyncDispose]());

    test("has the bytes that were built, and needs no library", async () => {
      expect(await isAsBuilt(join(path, "../.."))).toBe(true);
      expect(await librariesOf(path)).toEqual([]);
    });

    test("runs clones with nothing prepared, in a QEMU that waited, and warm ones", async () => {
      expect(vms.engine.info().qemu).toMatchObject({ path, kind: "lean" });
      for (const pool of [false, true, true]) {
        expect(await vms.script("uname -s; cat /proc/sys/kernel/random/boot_id | wc -c", { pool })).toBe("Linux\n37");
      }
    });

    test("keeps less for an idle clone than Debian's does", async () => {
      const stock = hostArtifacts().qemu.find(({ kind }) => kind === "full");
      if (stock === undefined) throw new Error("Debian's QEMU is not set up");
      const others = await TestEngine.open({ artifacts: withFirst(stock), templates: [] });
      const uniqueBytes = async (engine: TestEngine) => {
        const vm = await engine.start({ pool: false });
        expect(programOf(vm)).toBe(engine.engine.info().qemu.path);
        const { uniqueMemoryBytes } = await engine.engine.statsVm(vm.id, soon());
        await engine.remove(vm.id);
        return uniqueMemoryBytes;
      };
      expect(await uniqueBytes(vms)).toBeLessThan(0.9 * (await uniqueBytes(others)));
      await others.close();
    }, 120_000);
  });

  test("another one that is put in force is taken for new VMs; those that run go on", async () => {
    const before = hostArtifacts();
    const copy = join(newDirectory("qemu"), "qemu-system-x86_64");
    copyFileSync(before.qemu[0].path, copy);
    const { libraryPath, firmwarePaths } = before.qemu[0];
    const described = { ...(await describeQemu(copy, "prefix")), firmwarePaths, ...(libraryPath && { libraryPath }) };
    let inForce: HostArtifacts = before;
    let change = () => {};
    const newArtifacts = {
      watch: (onChange: () => void) => {
        change = onChange;
        return undefined;
      },
      load: async () => inForce,
    };
    const vms = await TestEngine.open({ newArtifacts, pool: { blocked: 0, warm: 1 } });
    const old = await vms.start();
    expect(programOf(old)).toBe(before.qemu[0].path);
    const changed = new Promise<string>((resolve) => {
      const stop = vms.engine.subscribe(({ type }) => {
        if (!type.startsWith("artifacts.")) return;
        stop();
        resolve(type);
      });
    });
    inForce = withFirst(described);
    change();
    expect(await changed).toBe("artifacts.changed");
    const young = await vms.start();
    expect(programOf(young)).toBe(copy);
    expect(vms.engine.info().qemu.path).toBe(copy);
    expect(await vms.shell(old.id, "echo still here")).toBe("still here");
    const fits = ({ templateId }: Vm) => vms.engine.getTemplate(templateId).compatible;
    expect([fits(old), fits(young)]).toEqual([false, true]);
    // Whichever were built since then, for the young one or for the pool.
    const others = vms.engine.listTemplates().filter(({ id }) => id !== old.templateId);
    expect(others.every(({ compatible }) => compatible)).toBe(true);
    for (const { id } of [old, young]) await vms.remove(id);
    await vms[Symbol.asyncDispose]();
  }, 120_000);
});
