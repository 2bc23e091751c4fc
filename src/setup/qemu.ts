/**
 * QEMU: the system's own if it is recent enough, else Debian's packages unpacked into a prefix of Mayfly's. On Debian 12
 * they come from backports, through package lists kept apart from the system's.
 */

import { MayflyError } from "../contract/errors.ts";
import {
  copyPath,
  filesBelow,
  identityOf,
  movePath,
  namesIn,
  readOptional,
  removePath,
  writeText,
} from "../sys/paths.ts";
import { publishDirectory } from "../sys/publish.ts";
import { findTool, runTool } from "../sys/tool.ts";
import type { QemuArtifact } from "./artifacts.ts";
import {
  candidateOf,
  debianCodename,
  installPackages,
  notInstalled,
  type PackageSource,
  SYSTEM_SOURCE,
  separateSource,
  updateLists,
  versionsOf,
} from "./debian.ts";
import { describeQemu, isRecentQemu, isUnchanged, MINIMUM_QEMU } from "./qemu-binary.ts";
import { leanInForce } from "./qemu-store.ts";
import type { Step, StepContext } from "./step.ts";
import { libraryPackages, unpackPackages } from "./unpack.ts";
import { compareVersions, type Workspace } from "./workspace.ts";

const PROGRAM = "qemu-system-x86_64";
/** Names of the shared-library packages that an unpacked QEMU needs, one a line. */
const LIBRARIES = "libraries.list";
/** Of QEMU's firmware only what an x86 machine loads. */
const FIRMWARE = /^(bios.*|kvmvapic|linuxboot.*|multiboot.*|pvh|qboot)\.(bin|rom)$/;

/** Step: fills `made.qemu`, the one to use first, then every other that is there. */
export function qemuStep(workspace: Workspace): Step {
  return {
    name: "QEMU",
    async pending() {
      const { qemu } = workspace.made;
      const wanted = process.env["MAYFLY_QEMU"];
      if (qemu === undefined) return "not set up yet";
      if (qemu[0].origin === "environment" && qemu[0].path !== wanted) return "MAYFLY_QEMU is no longer set";
      for (const entry of qemu) {
        if (!(await isUnchanged(entry))) return `${entry.path} was changed or removed`;
      }
      const unknown = (await systemQemus()).find((path) => !qemu.some((entry) => entry.path === path));
      if (unknown !== undefined) return `${unknown} is new`;
      const missing = qemu[0].kind === "lean" ? [] : await missingLibraries(qemu[0].path);
      return missing.length === 0 ? undefined : `${missing.join(", ")} missing`;
    },
    async run(context) {
      workspace.made.qemu = await findOrUnpack(workspace, context);
    },
  };
}

async function findOrUnpack(workspace: Workspace, context: StepContext): Promise<[QemuArtifact, ...QemuArtifact[]]> {
  const wanted = process.env["MAYFLY_QEMU"];
  if (wanted) return [await describeQemu(wanted, "environment")];
  const lean = await leanInForce(workspace);
  const [first, ...more] = await findStock(workspace, context);
  return lean === undefined ? [first, ...more] : [lean, first, ...more];
}

/** Debian's: the system's own, or the unpacked one. */
async function findStock(workspace: Workspace, context: StepContext): Promise<[QemuArtifact, ...QemuArtifact[]]> {
  const system: QemuArtifact[] = [];
  for (const path of await systemQemus()) system.push(await describeQemu(path, "system"));
  const [first] = system;
  if (first !== undefined && isRecentQemu(first.version)) return [first, ...system.slice(1)];
  const prefix = (await unpackedPrefix(workspace)) ?? (await unpack(workspace, context));
  await installLibraries(prefix, context);
  const own = await describeQemu(`${prefix}/bin/${PROGRAM}`, "prefix");
  const microvm = `${prefix}/bin/${PROGRAM}-microvm`;
  const more = (await identityOf(microvm)) === undefined ? [] : [await describeQemu(microvm, "prefix")];
  return [own, ...more, ...system];
}

/** The system's QEMU programs: the full one first. */
async function systemQemus(): Promise<string[]> {
  return [PROGRAM, `${PROGRAM}-microvm`].map(findTool).filter((path) => path !== undefined);
}

/** The newest prefix that an earlier set-up has unpacked. */
async function unpackedPrefix(workspace: Workspace): Promise<string | undefined> {
  const parent = `${workspace.directory}/qemu`;
  const version = (await namesIn(parent))
    .filter((name) => !name.startsWith(".") && isRecentQemu(name))
    .sort(compareVersions)
    .at(-1);
  return version === undefined ? undefined : `${parent}/${version}`;
}

async function unpack(workspace: Workspace, context: StepContext): Promise<string> {
  const { source, version } = await findSource(workspace, context);
  const seabios = (await versionsOf(source, "seabios"))[0] ?? (await candidateOf(source, "seabios"));
  const specs = [`qemu-system-x86=${version}`, `qemu-system-data=${version}`, `seabios=${seabios}`];
  const prefix = `${workspace.directory}/qemu/${version.replace(/^\d+:/, "").replaceAll(/[^A-Za-z0-9.+~-]/g, "_")}`;
  await publishDirectory(prefix, async (directory) => {
    const depends = await unpackPackages(source, specs, directory, context);
    await writeText(
      `${directory}/${LIBRARIES}`,
      `${libraryPackages(depends.get("qemu-system-x86") ?? "").join("\n")}\n`,
    );
    await arrange(`${directory}/root/usr`, directory);
    await removePath(`${directory}/root`);
  });
  return prefix;
}

/** Moves the programs and firmware that Mayfly uses from an unpacked `usr` into a prefix. */
async function arrange(usr: string, prefix: string): Promise<void> {
  await movePath(`${usr}/bin/${PROGRAM}`, `${prefix}/bin/${PROGRAM}`);
  const microvm = `bin/${PROGRAM}-microvm`;
  if ((await identityOf(`${usr}/${microvm}`)) !== undefined)
    await movePath(`${usr}/${microvm}`, `${prefix}/${microvm}`);
  for (const share of ["share/qemu", "share/seabios"]) {
    const files = (await filesBelow(`${usr}/${share}`)).filter((name) => FIRMWARE.test(name));
    for (const file of files) await copyPath(`${usr}/${share}/${file}`, `${prefix}/${share}/${file}`);
  }
}

/** Where a recent QEMU can be had: from the system's own sources, or from backports. */
async function findSource(
  workspace: Workspace,
  context: StepContext,
): Promise<{ source: PackageSource; version: string }> {
  const codename = await debianCodename();
  const own = await candidateOf(SYSTEM_SOURCE, "qemu-system-x86");
  if (own !== undefined && isRecentQemu(own)) return { source: SYSTEM_SOURCE, version: own };
  const suite = `${codename}-backports`;
  const source = await separateSource(`${workspace.directory}/apt/${suite}`, codename, suite);
  await updateLists(source, context);
  const version = (await versionsOf(source, "qemu-system-x86")).find(isRecentQemu);
  if (version !== undefined) return { source, version };
  throw new MayflyError(
    "qemu_not_found",
    `Cannot find QEMU ${MINIMUM_QEMU.join(".")} or newer: ${codename} has ${own ?? "none"} and ${suite} has no newer one`,
    { details: { remedy: "apt-get update && mayfly setup, or set MAYFLY_QEMU to a QEMU program" } },
  );
}

async function installLibraries(prefix: string, context: StepContext): Promise<void> {
  const path = `${prefix}/bin/${PROGRAM}`;
  if ((await missingLibraries(path)).length === 0) return;
  const names = ((await readOptional(`${prefix}/${LIBRARIES}`)) ?? "").split("\n").filter((name) => name !== "");
  await installPackages(await notInstalled(names), context);
  const left = await missingLibraries(path);
  if (left.length === 0) return;
  throw new MayflyError(
    "qemu_not_found",
    `Cannot run ${path}: ${left.join(", ")} not found, with all its packages installed`,
    {
      details: { path, problems: left },
    },
  );
}

/** Shared libraries that the dynamic linker does not find for a program (ld.so(8), LD_TRACE_LOADED_OBJECTS). */
async function missingLibraries(path: string): Promise<string[]> {
  const { stdout } = await runTool([path], { env: { LD_TRACE_LOADED_OBJECTS: "1" }, deadlineMs: 30_000 });
  return [...stdout.matchAll(/^\s*(\S+) => not found/gm)].flatMap((match) => match[1] ?? []);
}
