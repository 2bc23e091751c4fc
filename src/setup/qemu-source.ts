/** What a lean QEMU is built from: Debian's source package of QEMU with Debian's patches, and a meson that is recent enough for it. */

import { MayflyError } from "../contract/errors.ts";
import { filesBelow, makeDirectory, readOptional } from "../sys/paths.ts";
import { runTool } from "../sys/tool.ts";
import {
  candidateOf,
  debianCodename,
  downloadSource,
  type PackageSource,
  SYSTEM_SOURCE,
  separateSource,
  sourceVersionsOf,
  updateLists,
  versionsOf,
} from "./debian.ts";
import type { BuildPlace } from "./source-build.ts";
import type { StepContext } from "./step.ts";
import { unpackPackages } from "./unpack.ts";
import { compareVersions } from "./workspace.ts";

/** The Debian whose QEMU it is, on every host: its fixes come there first, and stay of one series. */
const SUITE = "trixie";
/** The series that the recipe is for. */
const SERIES = /^1:10\.0\./;
/** QEMU 10.0 wants this meson or a newer one. */
const LEAST_MESON = "1.5";

/** A source package in Debian's archive. */
export interface QemuSource {
  /** Debian's version, with its epoch. */
  version: string;
  source: PackageSource;
}

/** A package with meson. */
export interface MesonPackage {
  version: string;
  source: PackageSource;
}

/**
 * The newest source package of the series, after asking the mirror; when that cannot be reached, the newest that was known before.
 *
 * @param directory `STATE/artifacts/apt`, where the package lists are kept apart from the system's.
 * @throws MayflyError `qemu_not_found` if there is none, `tool_failed`.
 */
export async function findQemuSource(directory: string, context: StepContext): Promise<QemuSource> {
  const source = await separateSource(`${directory}/${SUITE}-sources`, await debianCodename(), SUITE, "deb-src");
  const failure = await updateLists(source, context).then(
    () => undefined,
    (error: unknown) => error,
  );
  const version = (await sourceVersionsOf(source, "qemu")).find((entry) => SERIES.test(entry));
  if (version !== undefined) return { version, source };
  if (failure !== undefined) throw failure;
  throw new MayflyError("qemu_not_found", `Cannot find the sources of QEMU 10.0: Debian's ${SUITE} has none`);
}

/**
 * A meson for it: the system's Debian's, or that of its backports.
 *
 * @throws MayflyError `artifact_missing` if both are too old.
 */
export async function findMeson(directory: string, context: StepContext): Promise<MesonPackage> {
  const isRecent = (version: string) => compareVersions(version, LEAST_MESON) >= 0;
  const own = (await versionsOf(SYSTEM_SOURCE, "meson"))[0] ?? (await candidateOf(SYSTEM_SOURCE, "meson"));
  if (own !== undefined && isRecent(own)) return { version: own, source: SYSTEM_SOURCE };
  const codename = await debianCodename();
  const suite = `${codename}-backports`;
  const source = await separateSource(`${directory}/${suite}`, codename, suite);
  await updateLists(source, context);
  const version = (await versionsOf(source, "meson")).find(isRecent);
  if (version !== undefined) return { version, source };
  throw new MayflyError(
    "artifact_missing",
    `Cannot find meson ${LEAST_MESON} or newer: ${codename} has ${own ?? "none"}, ${suite} has no newer one`,
  );
}

/**
 * Downloads the sources and unpacks them, with Debian's patches applied, into `directory/source`.
 *
 * @returns when the package was made, in seconds since 1970.
 */
export async function unpackQemu(
  place: BuildPlace,
  { source, version }: QemuSource,
  context: StepContext,
): Promise<number> {
  const packed = `${place.directory}/packed`;
  await makeDirectory(packed);
  await downloadSource(source, `qemu=${version}`, packed, context);
  const description = (await filesBelow(packed)).find((name) => name.endsWith(".dsc"));
  if (description === undefined) throw new Error(`apt-get has downloaded no .dsc of qemu ${version}`);
  context.report("unpacking the sources");
  const tree = `${place.directory}/source`;
  const words = ["dpkg-source", "--no-copy", "--no-check", "--extract", description, tree];
  await place.run(words, context, { cwd: packed });
  const { stdout } = await runTool(["dpkg-parsechangelog", "--show-field", "Timestamp"], { cwd: tree });
  return Number(stdout.trim());
}

/** Unpacks meson beside the sources. @returns the directory for PYTHONPATH. */
export async function unpackMeson(
  place: BuildPlace,
  { source, version }: MesonPackage,
  context: StepContext,
): Promise<string> {
  const directory = `${place.directory}/meson`;
  await makeDirectory(directory);
  await unpackPackages(source, [`meson=${version}`], directory, context);
  return `${directory}/root/usr/lib/python3/dist-packages`;
}

/** The Debian packages of this host whose versions decide about the bytes of what is built, as `name version` lines in a fixed order. */
export async function toolchainVersions(packages: readonly string[]): Promise<string> {
  const { stdout: major } = await runTool(["gcc", "-dumpversion"]);
  const names = [...packages, `gcc-${major.trim()}`, "libc6"].toSorted();
  const { stdout } = await runTool(["dpkg-query", "-W", "-f", "${binary:Package} ${Version}\n", ...names]);
  return stdout.trim();
}

/** The version in QEMU's own words, such as `10.0.13`, from an unpacked tree. */
export async function upstreamVersion(tree: string): Promise<string> {
  return ((await readOptional(`${tree}/VERSION`)) ?? "").trim();
}
