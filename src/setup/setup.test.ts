/** Set-up in a new state directory that borrows what was downloaded for this host before, so that nothing is fetched. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { stateDirectory } from "../sys/directories.ts";
import { identityOf, makeDirectory, makeLink, namesIn, removePath, temporaryDirectory } from "../sys/paths.ts";
import { loadArtifacts } from "./artifacts.ts";
import { setup } from "./setup.ts";
import type { SetupProgress } from "./step.ts";

const borrowed = `${stateDirectory()}/artifacts`;
const isSetUp = await loadArtifacts(stateDirectory()).then(
  () => true,
  () => false,
);

let stateDir = "";

beforeEach(async () => {
  stateDir = await temporaryDirectory("mayfly-setup");
  for (const part of ["qemu", "kernel", "busybox"]) await borrow(part);
});

afterEach(async () => {
  delete process.env["MAYFLY_QEMU"];
  await removePath(stateDir);
});

/** Links what the host's set-up has of a part. */
async function borrow(part: string): Promise<void> {
  await makeDirectory(`${stateDir}/artifacts/${part}`);
  for (const name of (await namesIn(`${borrowed}/${part}`)).filter((entry) => !entry.startsWith("."))) {
    await makeLink(`${borrowed}/${part}/${name}`, `${stateDir}/artifacts/${part}/${name}`);
  }
}

function steps(events: readonly SetupProgress[], kind: SetupProgress["kind"]): string[] {
  return events.filter((event) => event.kind === kind).map(({ step }) => step);
}

describe.skipIf(!isSetUp)("set-up", () => {
  test("makes what is missing, and then finds all done in no time", async () => {
    const events: SetupProgress[] = [];
    const onProgress = (event: SetupProgress) => void events.push(event);
    const made = await setup({ stateDir, onProgress });
    expect(steps(events, "finished")).toContain("guest agent");
    expect(await loadArtifacts(stateDir)).toEqual(made);
    expect(made.initramfs.path.startsWith(stateDir)).toBe(true);
    events.length = 0;
    const startedMs = performance.now();
    expect(await setup({ stateDir, onProgress })).toEqual(made);
    expect(performance.now() - startedMs).toBeLessThan(500);
    expect(steps(events, "started")).toEqual([]);
  }, 60_000);

  test("two at once work once", async () => {
    const events: SetupProgress[] = [];
    const onProgress = (event: SetupProgress) => void events.push(event);
    const [one, two] = await Promise.all([setup({ stateDir, onProgress }), setup({ stateDir, onProgress })]);
    expect(one).toEqual(two);
    expect(steps(events, "finished").filter((step) => step === "guest agent")).toHaveLength(1);
    expect(steps(events, "started").filter((step) => step === "waiting")).toHaveLength(1);
  }, 60_000);

  test("a part that went away is made again, the same bytes", async () => {
    await borrow("agent");
    const made = await setup({ stateDir });
    await removePath(made.initramfs.path);
    const error = await loadArtifacts(stateDir).catch((reason: unknown) => reason);
    expect(error instanceof MayflyError && error.code).toBe("setup_required");
    expect(await setup({ stateDir })).toEqual(made);
  }, 60_000);

  test("an abort stops it, what was being made is not there, and it can go on", async () => {
    const abort = new AbortController();
    const onProgress = (event: SetupProgress) => {
      if (event.kind === "activity" && event.message.startsWith("compiling")) abort.abort();
    };
    const error = await setup({ stateDir, signal: abort.signal, onProgress }).catch((reason: unknown) => reason);
    expect(error instanceof MayflyError && [error.code, error.stage]).toEqual(["cancelled", "guest agent"]);
    expect(await namesIn(`${stateDir}/artifacts/agent`)).toEqual([]);
    expect((await identityOf((await setup({ stateDir })).agent.path))?.isFile).toBe(true);
  }, 60_000);

  test("the environment's QEMU goes first", async () => {
    await borrow("agent");
    const made = await setup({ stateDir });
    const known = made.qemu[0];
    process.env["MAYFLY_QEMU"] = known.path;
    expect((await loadArtifacts(stateDir)).qemu).toEqual(made.qemu);
    const unknown = `${stateDir}/qemu-of-its-own`;
    await makeLink(known.path, unknown);
    process.env["MAYFLY_QEMU"] = unknown;
    expect((await loadArtifacts(stateDir)).qemu.map(({ path, origin }) => [path, origin])).toEqual([
      [unknown, "environment"],
      ...made.qemu.map(({ path, origin }) => [path, origin]),
    ]);
    process.env["MAYFLY_QEMU"] = "/nowhere/qemu";
    const error = await loadArtifacts(stateDir).catch((reason: unknown) => reason);
    expect(error instanceof MayflyError && error.code).toBe("qemu_not_found");
  }, 60_000);
});
