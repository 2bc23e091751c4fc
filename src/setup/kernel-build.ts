/** Building the minimal guest kernel from Debian's `linux-source`: the same bytes from the same package, fragment and compiler. */

import { createHash } from "node:crypto";
import fragmentText from "../../guest/kernel/kernel.config" with { type: "text" };
import { MayflyError } from "../contract/errors.ts";
import { hostCpuCount } from "../sys/host.ts";
import { copyPath, identityOf, makeDirectory, readOptional, removePath, writeText } from "../sys/paths.ts";
import { publishTree, sha256File } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import { describeKernel } from "./artifacts.ts";
import { packageField, SYSTEM_SOURCE } from "./debian.ts";
import { needCandidate } from "./kernel.ts";
import { parseKernelConfig, requireOptions, withNewNames } from "./kernel-config.ts";
import { kernelsDirectory } from "./kernel-store.ts";
import { runSteps, type SetupOptions } from "./setup.ts";
import { type BuildPlace, buildPackagesStep, inBuildPlace } from "./source-build.ts";
import type { Step, StepContext } from "./step.ts";
import { unpackPackages } from "./unpack.ts";

/** Raise it when the recipe below changes: it is part of a kernel's name. */
const RECIPE = 1;
const PACKAGES = ["bc", "bison", "flex", "gcc", "libc6-dev", "libelf-dev", "lz4", "make", "xz-utils"];
/** The unpacked part of the sources and what is compiled, with room. */
const NEEDED_BYTES = 2.5e9;
/** Lines that make prints for Linux 6.1 and this configuration: for the progress only. */
const EXPECTED_LINES = 1970;
/** Of the sources: other machines' parts, and those of drivers that are much and never built, are not unpacked. Their Kconfig files are. */
const LEFT_OUT = [
  ...["Documentation/[a-z]*/*", "drivers/gpu/drm/*.[ch]", "drivers/net/ethernet/*.[ch]", "drivers/net/wireless/*.[ch]"],
  ...["drivers/media/*.[ch]", "drivers/staging/*.[ch]", "sound/*.c", "tools/testing/*", "arch/arm*/boot/dts/*"],
];
const IMAGE = "arch/x86/boot/bzImage";

/** What the kernel is made of. */
interface Inputs {
  /** Debian's package with the sources, e.g. `linux-source-6.1`, and its version. */
  source: string;
  version: string;
  /** Name of the kernel: version, and a hash of all inputs. */
  name: string;
}

/** What {@link buildKernel} may be told. */
export interface KernelBuildOptions extends SetupOptions {
  /** Build it although it is there, and compare: the one that is there stays. */
  check?: boolean;
}

/** One build at work. */
interface Work extends Inputs {
  place: BuildPlace;
  /** The sources, in which it is built. */
  tree: string;
  /** When the sources were packed, which the kernel says as the time of its build. */
  packedAt: string;
}

/**
 * Builds the minimal kernel of this Debian, if it is not there yet, without putting it in force. Takes 5 to 20 minutes.
 *
 * @returns its name.
 * @throws MayflyError `root_required`, `disk_full`, `tool_failed` (details and log; also for a build that gives other bytes than before,
 * with `check`), `cancelled`, `artifact_missing` if an option of the fragment cannot be had. Nothing is left then but the log.
 */
export async function buildKernel(options: KernelBuildOptions): Promise<string> {
  await runSteps([buildPackagesStep(PACKAGES)], options);
  return inBuildPlace("kernel", NEEDED_BYTES, options, async (place) => {
    const work: Work = {
      ...{ source: "", version: "", name: "" },
      ...{ place, tree: `${place.directory}/source`, packedAt: "" },
    };
    const find = step("kernel version", "asking the package lists", async (context) => {
      Object.assign(work, await findInputs(context));
    });
    await runSteps([find], options);
    const path = `${kernelsDirectory(options.stateDir, "minimal")}/${work.name}`;
    const isThere = (await identityOf(`${path}/vmlinuz`)) !== undefined;
    if (isThere && !options.check) return work.name;
    await runSteps([...buildSteps(work), lastStep(work, path, isThere)], options);
    return work.name;
  });
}

function step(name: string, reason: string, run: Step["run"]): Step {
  return { name, pending: async () => reason, run };
}

function buildSteps(work: Work): Step[] {
  return [
    step("kernel sources", `${work.source} ${work.version}`, (context) => unpackSource(work, context)),
    step("kernel configuration", "guest/kernel/kernel.config", (context) => configure(work, context)),
    step("kernel", `compiling, with its log in ${work.place.logPath}`, (context) => compile(work, context)),
  ];
}

function lastStep(work: Work, path: string, isThere: boolean): Step {
  if (isThere) return step("comparison", `with ${path}`, () => compare(work, path));
  return step("kernel files", `moving into ${path}`, (context) => publish(work, path, context));
}

/** @throws MayflyError `tool_failed` unless both kernels are the same bytes. */
async function compare({ tree }: Work, path: string): Promise<void> {
  const [built, before] = await Promise.all([sha256File(`${tree}/${IMAGE}`), sha256File(`${path}/vmlinuz`)]);
  if (built === before) return;
  throw new MayflyError("tool_failed", `The kernel built now is ${built}, the one in ${path} is ${before}`, {
    details: { path },
  });
}

async function findInputs(context: StepContext): Promise<Inputs> {
  const meta = await needCandidate("linux-source", context);
  const depends = (await packageField(SYSTEM_SOURCE, `linux-source=${meta}`, "Depends")) ?? "";
  const source = /linux-source-[0-9.]+/.exec(depends)?.[0];
  if (source === undefined) {
    throw new MayflyError(
      "artifact_missing",
      `Cannot tell which sources linux-source ${meta} stands for: it depends on "${depends}"`,
    );
  }
  const version = await needCandidate(source, context);
  const hash = createHash("sha256");
  for (const part of [String(RECIPE), source, version, fragmentText, await toolVersions()]) hash.update(`${part}\0`);
  return { source, version, name: `${version.replaceAll(/[^A-Za-z0-9.+~]/g, "_")}-${hash.digest("hex").slice(0, 8)}` };
}

/** Compiler and linker, whose versions decide about the bytes. */
async function toolVersions(): Promise<string> {
  const outputs = await Promise.all(["gcc", "ld"].map((program) => runTool([`/usr/bin/${program}`, "--version"])));
  return outputs.map(({ stdout }) => stdout.split("\n")[0]).join("\n");
}

async function unpackSource(work: Work, context: StepContext): Promise<void> {
  const { place, source, version, tree } = work;
  const packages = `${place.directory}/package`;
  await makeDirectory(packages);
  await unpackPackages(SYSTEM_SOURCE, [`${source}=${version}`], packages, context);
  const tarball = `${packages}/root/usr/src/${source}.tar.xz`;
  work.packedAt = new Date((await identityOf(tarball))?.mtimeMs ?? 0).toISOString();
  context.report("unpacking the sources");
  await makeDirectory(tree);
  const excludes = LEFT_OUT.map((pattern) => `--exclude=*/${pattern}`);
  const options = ["--strip-components=1", "--wildcards", ...excludes, "-C", tree];
  await place.run(["tar", "-x", "-J", "-f", tarball, ...options], context, { cwd: place.directory });
  await removePath(packages);
}

async function configure({ place, tree, version }: Work, context: StepContext): Promise<void> {
  const fragment = parseKernelConfig(fragmentText);
  const path = `${place.directory}/fragment.config`;
  await writeText(path, withNewNames(fragmentText));
  await place.run(["make", "allnoconfig"], context, { cwd: tree, env: { KCONFIG_ALLCONFIG: path } });
  requireOptions(fragment, parseKernelConfig((await readOptional(`${tree}/.config`)) ?? ""), version);
}

async function compile({ place, tree, packedAt }: Work, context: StepContext): Promise<void> {
  let lines = 0;
  const onLine = (line: string) => {
    lines += 1;
    context.report(line.trim().replace(/\s+/, " "), Math.min(lines / EXPECTED_LINES, 0.99));
  };
  const env = {
    KBUILD_BUILD_TIMESTAMP: packedAt,
    KBUILD_BUILD_VERSION: "1",
    KBUILD_BUILD_USER: "mayfly",
    KBUILD_BUILD_HOST: "mayfly",
  };
  await place.run(["make", `-j${hostCpuCount()}`, "bzImage", "modules"], context, { cwd: tree, env, onLine });
}

/** Puts image, modules (as `modules/kernel/...`) and configuration where the kernels lie. */
async function publish({ place, tree }: Work, path: string, context: StepContext): Promise<void> {
  const result = `${place.directory}/result`;
  await makeDirectory(`${result}/modules`);
  await copyPath(`${tree}/${IMAGE}`, `${result}/vmlinuz`);
  await copyPath(`${tree}/.config`, `${result}/config`);
  await copyPath(`${tree}/modules.builtin`, `${result}/modules/modules.builtin`);
  const order = ((await readOptional(`${tree}/modules.order`)) ?? "").split("\n").filter((line) => line !== "");
  for (const name of order) {
    const file = name.replace(/\.o$/, ".ko").replace(/^kernel\//, "");
    await copyPath(`${tree}/${file}`, `${result}/modules/kernel/${file}`);
  }
  const { version } = await describeKernel(`${result}/vmlinuz`);
  context.report(`Linux ${version}`);
  await makeDirectory(path.slice(0, path.lastIndexOf("/")));
  await publishTree(result, path);
}
