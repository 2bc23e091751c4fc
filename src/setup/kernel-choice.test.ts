/** Choosing and removing guest kernels, in a new state directory that borrows what was downloaded for this host before. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { stateDirectory } from "../sys/directories.ts";
import { copyPath, makeDirectory, makeLink, namesIn, removePath, temporaryDirectory, writeText } from "../sys/paths.ts";
import { loadArtifacts } from "./artifacts.ts";
import { kernelAside, removeKernel, useKernel } from "./kernel-choice.ts";
import { kernelsOf } from "./kernel-store.ts";
import { setup } from "./setup.ts";

const borrowed = `${stateDirectory()}/artifacts`;
const isSetUp = await loadArtifacts(stateDirectory()).then(
  () => true,
  () => false,
);
const cloud = (await namesIn(`${borrowed}/kernel`)).find((name) => !name.startsWith(".")) ?? "";

let stateDir = "";

beforeEach(async () => {
  stateDir = await temporaryDirectory("mayfly-kernels");
  for (const part of ["qemu", "kernel", "busybox", "agent", "launcher", "rehearsal", "stand-ins"]) await borrow(part);
});
afterEach(() => removePath(stateDir));

/** Links what the host's set-up has of a part. */
async function borrow(part: string): Promise<void> {
  await makeDirectory(`${stateDir}/artifacts/${part}`);
  for (const name of (await namesIn(`${borrowed}/${part}`)).filter((entry) => !entry.startsWith("."))) {
    await makeLink(`${borrowed}/${part}/${name}`, `${stateDir}/artifacts/${part}/${name}`);
  }
}

/** A kernel as a build leaves it: Debian's, one byte longer, with everything that guests load built in. */
async function plantMinimal(name: string): Promise<string> {
  const directory = `${stateDir}/artifacts/kernel-minimal/${name}`;
  await copyPath(`${borrowed}/kernel/${cloud}/vmlinuz`, `${directory}/vmlinuz`);
  const bytes = new Uint8Array(await Bun.file(`${directory}/vmlinuz`).arrayBuffer());
  await writeText(`${directory}/vmlinuz`, Buffer.concat([bytes, Buffer.from(name)]));
  const names = ["virtio", "virtio_ring", "virtio_mmio", "virtio_console", "virtio_blk", "erofs", "overlay"];
  await writeText(`${directory}/modules/modules.builtin`, names.map((entry) => `kernel/${entry}.ko\n`).join(""));
  return `${directory}/vmlinuz`;
}

async function failure(action: Promise<unknown>): Promise<MayflyError> {
  const error = await action.catch((reason: unknown) => reason);
  if (error instanceof MayflyError) return error;
  throw new Error("it did not fail");
}

const inUse = async () => (await kernelsOf(stateDir)).filter((entry) => entry.inUse).map(({ name }) => name);

describe.skipIf(!isSetUp)("guest kernels", () => {
  test("one that was built is what a new set-up uses; it takes its own initramfs, without modules", async () => {
    const path = await plantMinimal("6.1.9-1-0badcafe");
    const made = await setup({ stateDir });
    expect(made.kernel.path).toBe(path);
    const cloudFirst = await useKernel("cloud", { stateDir });
    expect(await inUse()).toEqual([cloud]);
    expect(cloudFirst.initramfs.sha256).not.toBe(made.initramfs.sha256);
    const size = (file: string) => Bun.file(file).size;
    expect(size(cloudFirst.initramfs.path)).toBeGreaterThan(size(made.initramfs.path) + 500_000);
    expect(await setup({ stateDir })).toEqual(cloudFirst);
    expect(await useKernel("minimal", { stateDir })).toEqual(made);
  }, 120_000);

  test("the newest of a kind goes by version; a name is exact; what is not there is named", async () => {
    await plantMinimal("6.1.9-1-aaaaaaaa");
    const newest = await plantMinimal("6.1.10-1-00000000");
    expect((await useKernel("minimal", { stateDir })).kernel.path).toBe(newest);
    await useKernel("6.1.9-1-aaaaaaaa", { stateDir });
    expect(await inUse()).toEqual(["6.1.9-1-aaaaaaaa"]);
    const error = await failure(useKernel("6.1.11", { stateDir }));
    expect(error.code).toBe("kernel_not_found");
    expect(error.message).toContain(`there are ${cloud}, 6.1.9-1-aaaaaaaa, 6.1.10-1-00000000`);
    expect(await inUse()).toEqual(["6.1.9-1-aaaaaaaa"]);
  }, 120_000);

  test("the one in use stays, others go; one can be taken aside without being put in force", async () => {
    await plantMinimal("6.1.9-1-aaaaaaaa");
    await useKernel("cloud", { stateDir });
    const before = await loadArtifacts(stateDir);
    const aside = await kernelAside("minimal", { stateDir });
    expect(aside.kernelPath).toEndWith("6.1.9-1-aaaaaaaa/vmlinuz");
    expect(aside.initramfsPath).not.toBe(before.initramfs.path);
    expect(await loadArtifacts(stateDir)).toEqual(before);
    expect((await failure(removeKernel(cloud, { stateDir }))).code).toBe("resource_in_use");
    await removeKernel("6.1.9-1-aaaaaaaa", { stateDir });
    expect(await namesIn(`${stateDir}/artifacts/kernel-minimal`)).toEqual([]);
    expect((await failure(removeKernel("minimal", { stateDir }))).details.remedy).toBe("mayfly kernel build");
  }, 120_000);
});
