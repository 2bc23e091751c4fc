import { afterEach, beforeEach, expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { removePath, temporaryDirectory, writeText } from "../sys/paths.ts";
import { type Artifacts, describeKernel, loadArtifacts, parseArtifacts, saveArtifacts } from "./artifacts.ts";

let stateDir = "";
let artifacts: Artifacts;

beforeEach(async () => {
  stateDir = await temporaryDirectory("mayfly-artifacts");
  const path = (name: string) => `${stateDir}/${name}`;
  artifacts = {
    magic: "mayfly-artifacts",
    version: 1,
    qemu: [
      {
        path: path("qemu"),
        version: "10.0.2",
        firmwarePaths: [],
        kind: "full",
        origin: "prefix",
        sizeBytes: 1,
        mtimeMs: 2,
      },
    ],
    kernel: { path: path("vmlinuz"), version: "6.1.0", sha256: "00" },
    initramfs: { path: path("initramfs"), sha256: "00" },
    agent: { path: path("agent"), buildId: "00", sha256: "00" },
    launcher: { path: path("launcher") },
    rehearsal: { path: path("rehearsal"), sha256: "00" },
  };
  for (const name of ["qemu", "vmlinuz", "initramfs", "agent", "launcher", "rehearsal"])
    await writeText(path(name), name);
});

afterEach(async () => {
  await removePath(stateDir);
});

async function failure(action: Promise<unknown>): Promise<MayflyError> {
  const error = await action.catch((reason: unknown) => reason);
  if (error instanceof MayflyError) return error;
  throw new Error("it did not fail");
}

test("what was saved is loaded", async () => {
  await saveArtifacts(stateDir, artifacts);
  expect(await loadArtifacts(stateDir)).toEqual(artifacts);
});

test("without set-up, and with a part gone, the remedy is to set up", async () => {
  expect((await failure(loadArtifacts(stateDir))).details.remedy).toBe("mayfly setup");
  await saveArtifacts(stateDir, artifacts);
  await removePath(artifacts.launcher.path);
  const error = await failure(loadArtifacts(stateDir));
  expect(error.code).toBe("setup_required");
  expect(error.message).toContain(artifacts.launcher.path);
});

test("every problem of a damaged file is named", () => {
  const damaged = { ...artifacts, version: 2, qemu: [], launcher: { path: "relative" } };
  expect(parseArtifacts(JSON.stringify(damaged)).problems).toEqual([
    "version is 2, not 1",
    "qemu names none",
    "launcher.path relative is not absolute",
  ]);
});

test("no damage makes the reader throw, nor gives artifacts without their parts", () => {
  const text = JSON.stringify(artifacts);
  fc.assert(
    fc.property(fc.nat(text.length - 1), fc.string({ maxLength: 3 }), (at, inserted) => {
      const { artifacts: read, problems } = parseArtifacts(text.slice(0, at) + inserted + text.slice(at + 1));
      expect(read === undefined).toBe(problems.length > 0);
    }),
    { numRuns: 300 },
  );
});

test("a kernel's version is read from its header, and what is no kernel is refused", async () => {
  const header = Buffer.alloc(8192);
  header.writeUInt32LE(0x53726448, 0x202);
  header.writeUInt16LE(0x1000, 0x20e);
  header.write("6.1.0-56-cloud-amd64 (debian-kernel) #1", 0x1200);
  await writeText(`${stateDir}/vmlinuz`, header);
  expect((await describeKernel(`${stateDir}/vmlinuz`)).version).toBe("6.1.0-56-cloud-amd64");
  await writeText(`${stateDir}/vmlinuz`, "no kernel");
  expect((await failure(describeKernel(`${stateDir}/vmlinuz`))).code).toBe("kernel_not_found");
});
