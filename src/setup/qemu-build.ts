/** Building a lean QEMU from Debian's sources by the recipe in the folder `qemu`: the same bytes from the same sources and compiler. */

import { MayflyError } from "../contract/errors.ts";
import { hostCpuCount } from "../sys/host.ts";
import { copyPath, filesBelow, identityOf, makeDirectory, readOptional, removePath, writeText } from "../sys/paths.ts";
import { publishFile, publishTree, sha256File } from "../sys/publish.ts";
import { type Artifacts, artifactsDirectory } from "./artifacts.ts";
import { BUILD_FILE, describeQemu } from "./qemu-binary.ts";
import {
  BUILD_PACKAGES,
  configureOptions,
  DEVICE_TREE_SOURCE,
  DEVICES,
  flagsFor,
  recipeHash,
  type Variant,
} from "./qemu-recipe.ts";
import {
  findMeson,
  findQemuSource,
  type MesonPackage,
  type QemuSource,
  toolchainVersions,
  unpackMeson,
  unpackQemu,
} from "./qemu-source.ts";
import { formatBuild, leanDirectory, PROGRAM_PATH } from "./qemu-store.ts";
import { runSteps, type SetupOptions, setup } from "./setup.ts";
import { type BuildPlace, buildPackagesStep, inBuildPlace } from "./source-build.ts";
import type { Step, StepContext } from "./step.ts";

/** The sources and what is compiled, with room. */
const NEEDED_BYTES = 1.5e9;
const PROGRAM = "qemu-system-x86_64";
/** Of Debian's firmware what a microvm may load. */
const FIRMWARE = /^(bios-microvm\.bin|qboot\.rom|kvmvapic\.bin|linuxboot_dma\.bin|pvh\.bin)$/;
/** Where Debian's own QEMU looks for it. */
const SYSTEM_FIRMWARE = ["/usr/share/qemu", "/usr/share/seabios"];

/** One build at work. */
interface Work {
  place: BuildPlace;
  variant: Variant;
  artifacts: Artifacts;
  source: QemuSource;
  meson: MesonPackage;
  recipe: string;
  /** When Debian made the sources, in seconds since 1970: what a program may take for the time of its build. */
  packedAt: number;
  /** Directory with meson, for PYTHONPATH. */
  mesonPath: string;
}

/** What {@link buildQemu} may be told besides. */
export interface QemuBuildOptions extends SetupOptions, Variant {
  /** Build it although it is there, and compare: the one that is there stays. */
  check?: boolean;
}

/**
 * Builds the lean QEMU, if it is not there yet, without putting it in force. Takes 2 to 6 minutes on two cores.
 *
 * @returns its name: Debian's version, and the begin of a hash of all that decides about its bytes.
 * @throws MayflyError `root_required`, `disk_full`, `tool_failed` (details and log; also for a build that gives other bytes than
 * before, with `check`), `cancelled`, `qemu_not_found`. Nothing is left then but the log; of one that was interrupted what is done is, for
 * the next.
 */
export async function buildQemu(options: QemuBuildOptions): Promise<string> {
  const artifacts = await setup(options);
  await runSteps([buildPackagesStep(BUILD_PACKAGES)], options);
  return inBuildPlace("qemu", NEEDED_BYTES, options, (place) => buildIn(place, artifacts, options), { resumes: true });
}

async function buildIn(place: BuildPlace, artifacts: Artifacts, options: QemuBuildOptions): Promise<string> {
  const work: Work = {
    ...{
      place,
      variant: { pie: options.pie },
      artifacts,
      source: nothing(),
      meson: nothing(),
      recipe: "",
      packedAt: 0,
      mesonPath: "",
    },
  };
  const find = step("QEMU version", "asking the package lists", async (context) => {
    Object.assign(work, await findInputs(options.stateDir, work.variant, context));
    context.report(work.source.version);
  });
  await runSteps([find], options);
  const name = nameOf(work);
  const path = `${leanDirectory(options.stateDir)}/${name}`;
  const isThere = (await identityOf(`${path}/${PROGRAM_PATH}`)) !== undefined;
  if (isThere && !options.check) return name;
  await place.begin(work.recipe);
  await runSteps([...buildSteps(work), lastStep(work, path, isThere)], options);
  return name;
}

function nothing(): QemuSource & MesonPackage {
  return { version: "", source: { name: "", options: [], system: false } };
}

function step(name: string, reason: string, run: Step["run"]): Step {
  return { name, pending: async () => reason, run };
}

/** A step that an interrupted build may have done: then `result` gets what it was resolved with. */
function onceStep(
  place: BuildPlace,
  name: string,
  reason: string,
  run: (context: StepContext) => Promise<string>,
  result: (text: string) => void,
): Step {
  const path = `${place.directory}/.done-${name.replaceAll(" ", "-")}`;
  return {
    name,
    async pending() {
      const done = await readOptional(path);
      if (done === undefined) return reason;
      result(done);
      return undefined;
    },
    async run(context) {
      const text = await run(context);
      await publishFile(path, text);
      result(text);
    },
  };
}

function nameOf({ source, recipe }: Work): string {
  const version = source.version.replace(/^\d+:/, "").replaceAll(/[^A-Za-z0-9.+~-]/g, "_");
  return `${version}-${recipe.slice(0, 8)}`;
}

async function findInputs(
  stateDir: string,
  variant: Variant,
  context: StepContext,
): Promise<Pick<Work, "source" | "meson" | "recipe">> {
  const lists = `${artifactsDirectory(stateDir)}/apt`;
  const source = await findQemuSource(lists, context);
  const meson = await findMeson(lists, context);
  const recipe = recipeHash(variant, [source.version, meson.version, await toolchainVersions(BUILD_PACKAGES)]);
  return { source, meson, recipe };
}

function buildSteps(work: Work): Step[] {
  const { place, source, meson } = work;
  const { directory, logPath } = place;
  const empty = async (names: readonly string[]) => {
    for (const name of names) await removePath(`${directory}/${name}`);
  };
  return [
    onceStep(
      place,
      "QEMU sources",
      `${source.version}, from Debian`,
      async (context) => {
        await empty(["packed", "source"]);
        return String(await unpackQemu(place, source, context));
      },
      (packedAt) => {
        work.packedAt = Number(packedAt);
      },
    ),
    onceStep(
      place,
      "meson",
      `${meson.version}, for this build only`,
      async (context) => {
        await empty(["meson"]);
        return unpackMeson(place, meson, context);
      },
      (path) => {
        work.mesonPath = path;
      },
    ),
    onceStep(
      place,
      "QEMU configuration",
      "qemu/configure.list, qemu/devices.mak",
      async (context) => {
        await empty(["source/build"]);
        await configure(work, context);
        return "";
      },
      () => {},
    ),
    step("QEMU", `compiling, with its log in ${logPath}`, (context) => compile(work, context)),
  ];
}

function lastStep(work: Work, path: string, isThere: boolean): Step {
  if (isThere) return step("QEMU comparison", `with ${path}`, () => compare(work, path));
  return step("QEMU files", `moving into ${path}`, (context) => publish(work, path, context));
}

/** Variables of all programs of the build. No caches of Python: they have times in them. What the compiler leaves when it is killed goes, too. */
function environment({ place, packedAt, mesonPath }: Work): Record<string, string> {
  const python = { PYTHONPATH: mesonPath, PYTHONDONTWRITEBYTECODE: "1" };
  return { SOURCE_DATE_EPOCH: String(packedAt), TMPDIR: place.directory, ...python };
}

async function configure(work: Work, context: StepContext): Promise<void> {
  const { place } = work;
  const tree = `${place.directory}/source`;
  await writeText(`${tree}/configs/devices/x86_64-softmmu/mayfly.mak`, DEVICES);
  await leaveOut(tree);
  const object = `${place.directory}/fdt_create.o`;
  await writeText(`${place.directory}/fdt_create.c`, DEVICE_TREE_SOURCE);
  const { compiler, linker } = flagsFor(place.directory, object);
  const env = environment(work);
  const words = ["gcc", ...compiler.split(" "), "-fPIE", "-c", "fdt_create.c", "-o", object];
  await place.run(words, context, { cwd: place.directory, env });
  await makeDirectory(`${tree}/build`);
  const onLine = (line: string) => context.report(line.trim());
  const flags = [`--extra-cflags=${compiler}`, `--extra-ldflags=${linker}`];
  await place.run(["../configure", ...configureOptions(work.variant), ...flags], context, {
    cwd: `${tree}/build`,
    env,
    onLine,
  });
}

/**
 * Debian's sources lack the binary files of other firmwares, and QEMU's configure wants them to be there for a target that is not
 * built; it wants a Python package besides that only QEMU's own tests run.
 */
async function leaveOut(tree: string): Promise<void> {
  const firmware = (await readOptional(`${tree}/pc-bios/meson.build`)) ?? "";
  for (const [name] of firmware.matchAll(/edk2-[a-z0-9_-]+\.fd\b/g)) {
    const path = `${tree}/pc-bios/${name}.bz2`;
    if ((await identityOf(path)) === undefined) await writeText(path, "");
  }
  const needs = (await readOptional(`${tree}/pythondeps.toml`)) ?? "";
  await writeText(`${tree}/pythondeps.toml`, needs.replace(/^pycotap .*\n/m, ""));
}

async function compile(work: Work, context: StepContext): Promise<void> {
  const onLine = (line: string) => {
    const [, done, all] = /^\[(\d+)\/(\d+)\]/.exec(line) ?? [];
    if (done !== undefined && all !== undefined) context.report(`${done} of ${all}`, Number(done) / Number(all));
  };
  const cwd = `${work.place.directory}/source/build`;
  const words = ["ninja", `-j${hostCpuCount()}`, PROGRAM];
  await work.place.run(words, context, { cwd, env: environment(work), onLine });
}

function builtProgram({ place }: Work): string {
  return `${place.directory}/source/build/${PROGRAM}`;
}

/** Puts program, firmware and what is known of it where the lean QEMUs lie, after a first run. */
async function publish(work: Work, path: string, context: StepContext): Promise<void> {
  const result = `${work.place.directory}/result`;
  const program = `${result}/${PROGRAM_PATH}`;
  await copyPath(builtProgram(work), program);
  for (const directory of firmwareDirectories(work.artifacts)) {
    for (const name of (await filesBelow(directory)).filter((file) => FIRMWARE.test(file))) {
      const to = `${result}/share/qemu/${name}`;
      if ((await identityOf(to)) === undefined) await copyPath(`${directory}/${name}`, to);
    }
  }
  const { version } = await describeQemu(program, "built");
  context.report(`QEMU ${version}`);
  const build = { sourceVersion: work.source.version, recipe: work.recipe, sha256: await sha256File(program) };
  await writeText(`${result}/${BUILD_FILE}`, formatBuild(build));
  await makeDirectory(path.slice(0, path.lastIndexOf("/")));
  await publishTree(result, path);
}

/** Where the firmware of Debian's QEMU lies, in its order. */
function firmwareDirectories({ qemu }: Artifacts): readonly string[] {
  const own = qemu.find(({ kind }) => kind !== "lean")?.firmwarePaths ?? [];
  return own.length > 0 ? own : SYSTEM_FIRMWARE;
}

async function compare(work: Work, path: string): Promise<void> {
  const [before, now] = [await sha256File(`${path}/${PROGRAM_PATH}`), await sha256File(builtProgram(work))];
  if (before === now) return;
  throw new MayflyError(
    "tool_failed",
    `QEMU ${work.source.version} was built twice with different results: ${before}, ${now}`,
    {
      details: { path },
    },
  );
}
