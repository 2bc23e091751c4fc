/** Choosing a QEMU, in a new state directory that borrows what was downloaded for this host before. The lean ones here are scripts. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { stateDirectory } from "../sys/directories.ts";
import { copyPath, makeDirectory, makeLink, namesIn, removePath, temporaryDirectory, writeText } from "../sys/paths.ts";
import { processesRunning } from "../sys/running-programs.ts";
import { loadArtifacts } from "./artifacts.ts";
import { removeQemu, useQemu } from "./qemu-choice.ts";
import { findLean, librariesOf, PROGRAM_PATH, qemusOf } from "./qemu-store.ts";
import { setup } from "./setup.ts";

const borrowed = `${stateDirectory()}/artifacts`;
const isSetUp = await loadArtifacts(stateDirectory()).then(
  () => true,
  () => false,
);
const [OLD, NEW] = ["10.0.2+ds-1-aaaaaaaa", "10.0.13+ds-0-bbbbbbbb"];

let stateDir = "";

beforeAll(async () => {
  stateDir = await temporaryDirectory("mayfly-qemus");
});
afterAll(() => removePath(stateDir));

function directoryOf(name: string): string {
  return `${stateDir}/artifacts/qemu-lean/${name}`;
}

async function makeLean(name: string, version: string): Promise<string> {
  const path = `${directoryOf(name)}/${PROGRAM_PATH}`;
  await writeText(path, `#!/bin/sh\necho "QEMU emulator version ${version}"\n`, 0o755);
  await writeText(`${directoryOf(name)}/build.json`, "{}");
  await makeDirectory(`${directoryOf(name)}/share/qemu`);
  return path;
}

async function codeOf(action: Promise<unknown>): Promise<string> {
  const error = await action.catch((reason: unknown) => reason);
  return error instanceof MayflyError ? error.code : "none";
}

test("the newest lean one is the one of the highest version, and what is not complete is none", async () => {
  expect(await codeOf(findLean(stateDir, "lean"))).toBe("qemu_not_found");
  const path = await makeLean(NEW, "10.0.13");
  await makeLean(OLD, "10.0.2");
  await makeLean(".unfinished-10.0.14-cccccccc", "10.0.14");
  expect(await findLean(stateDir, "lean")).toEqual({ name: NEW, path });
  expect((await qemusOf(stateDir)).map(({ name, kind, inUse }) => [name, kind, inUse])).toEqual([
    [OLD, "lean", false],
    [NEW, "lean", false],
  ]);
  const unknown = await findLean(stateDir, "10.0.1").catch((error: unknown) => error);
  expect(String(unknown)).toContain(`stock, ${OLD}, ${NEW}`);
});

test("libraries are those that the program loads, none for what is no program of the dynamic linker's", async () => {
  expect(await librariesOf("/bin/sh")).toContain("libc.so.6");
  expect(await librariesOf(`${directoryOf(NEW)}/${PROGRAM_PATH}`)).toEqual([]);
});

test("who runs a program is seen, until it ends", async () => {
  const path = `${stateDir}/sleep`;
  await copyPath("/bin/sleep", path);
  const child = Bun.spawn([path, "60"]);
  expect(processesRunning(path)).toEqual([child.pid]);
  child.kill();
  await child.exited;
  expect(processesRunning(path)).toEqual([]);
});

describe.skipIf(!isSetUp)("the choice", () => {
  beforeAll(async () => {
    for (const part of ["qemu", "kernel", "busybox"]) {
      await makeDirectory(`${stateDir}/artifacts/${part}`);
      for (const name of (await namesIn(`${borrowed}/${part}`)).filter((entry) => !entry.startsWith("."))) {
        await makeLink(`${borrowed}/${part}/${name}`, `${stateDir}/artifacts/${part}/${name}`);
      }
    }
  });

  test("is the newest lean one by itself, and stays what was said", async () => {
    const first = await setup({ stateDir });
    expect(first.qemu.map(({ kind }) => kind).slice(0, 2)).toEqual(["lean", "full"]);
    expect(first.qemu[0]).toMatchObject({ version: "10.0.13", origin: "built" });
    expect(first.qemu[0].firmwarePaths).toEqual([`${directoryOf(NEW)}/share/qemu`]);
    expect((await useQemu(OLD, { stateDir })).qemu[0].version).toBe("10.0.2");
    expect((await setup({ stateDir })).qemu[0].version).toBe("10.0.2");
    expect((await useQemu("stock", { stateDir })).qemu[0].kind).toBe("full");
    expect((await setup({ stateDir })).qemu.some(({ kind }) => kind === "lean")).toBe(false);
    expect((await useQemu("lean", { stateDir })).qemu[0].version).toBe("10.0.13");
    expect((await qemusOf(stateDir)).filter(({ inUse }) => inUse).map(({ name }) => name)).toEqual([NEW]);
  }, 120_000);

  test("keeps what is in use from being removed, and Debian's", async () => {
    expect(await codeOf(removeQemu(NEW, { stateDir }))).toBe("resource_in_use");
    expect(await codeOf(removeQemu("stock", { stateDir }))).toBe("invalid_argument");
    expect(await codeOf(removeQemu("none", { stateDir }))).toBe("qemu_not_found");
    await removeQemu(OLD, { stateDir });
    expect((await namesIn(`${stateDir}/artifacts/qemu-lean`)).filter((name) => name.startsWith("1"))).toEqual([NEW]);
  });

  test("falls back to Debian's when the lean one is gone", async () => {
    await removePath(directoryOf(NEW));
    expect((await setup({ stateDir })).qemu[0].kind).toBe("full");
  }, 60_000);
});
