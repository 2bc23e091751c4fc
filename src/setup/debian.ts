/** Debian's package tools, run quietly: what is installed, installing, and downloading without installing. */

import { MayflyError } from "../contract/errors.ts";
import { isDirectoryEmpty, isRoot, makeDirectory, readOptional, writeText } from "../sys/paths.ts";
import { runTool } from "../sys/tool.ts";
import type { StepContext } from "./step.ts";

/** A set of package lists: the system's own, or one that Mayfly keeps apart. */
export interface PackageSource {
  name: string;
  /** Options for apt-get and apt-cache. */
  options: readonly string[];
  /** Whether `apt-get update` of it needs root. */
  system: boolean;
}

/** The package sources that the system is set up with. */
export const SYSTEM_SOURCE: PackageSource = { name: "the system's package lists", options: [], system: true };

const APT_ENVIRONMENT = {
  DEBIAN_FRONTEND: "noninteractive",
  NEEDRESTART_SUSPEND: "1",
  APT_LISTCHANGES_FRONTEND: "none",
};
const STATUS_OPTIONS = ["-q=1", "-o", "APT::Status-Fd=1", "-o", "APT::Sandbox::User=root"];
/** Another package tool may be at work for so long. */
const LOCK_TIMEOUT_SECONDS = 600;
const INSTALL_DEADLINE_MS = 1_800_000;

/** Suite name of the running Debian, e.g. `bookworm`, from os-release. @throws MayflyError `failed_precondition` kinds on another system. */
export async function debianCodename(): Promise<string> {
  const text = (await readOptional("/etc/os-release")) ?? "";
  const field = (name: string) => new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(text)?.[1];
  const codename = field("VERSION_CODENAME");
  if (field("ID") === "debian" && codename !== undefined) return codename;
  throw new MayflyError(
    "artifact_missing",
    `Cannot get packages on ${field("PRETTY_NAME") ?? "this system"}: set-up knows Debian 12 or later only`,
    { details: { remedy: "set MAYFLY_QEMU and MAYFLY_KERNEL to a QEMU 8.2 or newer and a Linux kernel" } },
  );
}

/**
 * Installs packages with the system's apt-get; lists are updated only where they do not do.
 *
 * @throws MayflyError `root_required`, `tool_failed`, `cancelled` (after dpkg has come to a safe end).
 */
export async function installPackages(packages: readonly string[], context: StepContext): Promise<void> {
  requireRoot(`install the Debian packages ${packages.join(", ")}`);
  await finishInterruptedDpkg(context);
  const install = () =>
    aptGet(SYSTEM_SOURCE, ["install", "-y", "--no-install-recommends", "--no-remove", ...packages], context, {
      deadlineMs: INSTALL_DEADLINE_MS,
      uninterruptible: true,
    });
  if (!(await haveCandidates(SYSTEM_SOURCE, packages))) {
    await updateLists(SYSTEM_SOURCE, context);
    await install();
    return;
  }
  await install().catch(async (error: unknown) => {
    if (!isFetchFailure(error)) throw error;
    await updateLists(SYSTEM_SOURCE, context);
    await install();
  });
}

/** Versions of a package that a source has, the highest first; empty if none or no lists yet. */
export async function versionsOf(source: PackageSource, name: string): Promise<string[]> {
  const { stdout } = await runTool(["apt-cache", ...source.options, "madison", name]).catch(() => ({ stdout: "" }));
  return stdout
    .split("\n")
    .map((line) => line.split("|").map((part) => part.trim()))
    .filter((parts) => parts[0] === name && parts[2]?.endsWith("Packages"))
    .flatMap((parts) => parts[1] ?? []);
}

/** The version that apt would install, or `undefined`. */
export async function candidateOf(source: PackageSource, name: string): Promise<string | undefined> {
  const { stdout } = await runTool(["apt-cache", ...source.options, "policy", name]).catch(() => ({ stdout: "" }));
  return /^ {2}Candidate: (?!\(none\))(\S+)/m.exec(stdout)?.[1];
}

/** Those of the named packages that are not installed. */
export async function notInstalled(names: readonly string[]): Promise<string[]> {
  const { stdout } = await runTool(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n"]);
  const installed = new Set(stdout.split("\n").flatMap((line) => /^(\S+) .i /.exec(`${line} `)?.[1] ?? []));
  return names.filter((name) => !installed.has(name));
}

/** A field of a package's entry, e.g. `Depends`. @throws MayflyError `tool_failed`. */
export async function packageField(source: PackageSource, spec: string, field: string): Promise<string | undefined> {
  const { stdout } = await runTool(["apt-cache", ...source.options, "show", spec]);
  return new RegExp(`^${field}: (.*)$`, "m").exec(stdout)?.[1];
}

/** Brings a source's lists up to date. @throws MayflyError `root_required` for the system's, `tool_failed`. */
export async function updateLists(source: PackageSource, context: StepContext): Promise<void> {
  if (source.system) requireRoot("update the package lists");
  context.report(`updating ${source.name}`);
  await aptGet(source, ["update"], context, {});
}

/**
 * Downloads packages, `name=version` each, into `directory`. apt checks their hashes against the signed lists.
 * Lists that are out of date (the mirror has gone on) are updated once.
 *
 * @throws MayflyError `tool_failed`, saying which package could not be had and what to do.
 */
export async function downloadPackages(
  source: PackageSource,
  specs: readonly string[],
  directory: string,
  context: StepContext,
): Promise<void> {
  const download = () => aptGet(source, ["download", ...specs], context, { cwd: directory });
  try {
    await download().catch(async (error: unknown) => {
      if (!isFetchFailure(error)) throw error;
      await updateLists(source, context);
      await download();
    });
  } catch (error) {
    if (!isFetchFailure(error)) throw error;
    throw notDownloaded(specs, source, error);
  }
}

function notDownloaded(specs: readonly string[], source: PackageSource, cause: MayflyError): MayflyError {
  const stderrTail = cause.details.stderrTail ?? "";
  const remedy = "the mirror is being updated or not reachable: try again in some minutes";
  return new MayflyError(
    "tool_failed",
    `Cannot download ${specs.join(", ")} from ${source.name}: ${firstError(stderrTail)}`,
    { details: { stderrTail, remedy }, cause },
  );
}

/** Versions of a source package that a source made for `deb-src` has, the highest first; empty if none or no lists yet. */
export async function sourceVersionsOf(source: PackageSource, name: string): Promise<string[]> {
  const { stdout } = await runTool(["apt-cache", ...source.options, "showsrc", "--only-source", name]).catch(() => ({
    stdout: "",
  }));
  const versions = [...stdout.matchAll(/^Version: (\S+)$/gm)].flatMap((match) => match[1] ?? []);
  return versions.toSorted((a, b) => b.localeCompare(a, "en", { numeric: true }));
}

/**
 * Downloads the files of a source package into `directory`: its `.dsc` and what that names. apt checks their hashes against the
 * signed lists.
 *
 * @throws MayflyError `tool_failed`, saying what could not be had and what to do.
 */
export async function downloadSource(
  source: PackageSource,
  spec: string,
  directory: string,
  context: StepContext,
): Promise<void> {
  const words = ["source", "--download-only", "--only-source", spec];
  await aptGet(source, words, context, { cwd: directory }).catch((error: unknown) => {
    throw isFetchFailure(error) ? notDownloaded([spec], source, error) : error;
  });
}

/** The mirror that the system uses for a suite's `main`, and the keyring that its lists are signed with. @throws MayflyError `artifact_missing`. */
export async function debianMirror(codename: string): Promise<{ uri: string; keyring: string }> {
  const format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)";
  const { stdout } = await runTool(["apt-get", "indextargets", "--format", format, "Created-By: Packages"]);
  const entry = stdout
    .split("\n")
    .map((line) => line.split("|"))
    .find((parts) => parts[1] === codename && parts[2] === "main");
  const uri = entry?.[0];
  if (uri === undefined) {
    throw new MayflyError("artifact_missing", `Cannot find a mirror: apt has no source for ${codename} main`, {
      details: { remedy: `add Debian's ${codename} main to /etc/apt/sources.list` },
    });
  }
  const keyring = entry?.[3]?.startsWith("/") ? entry[3] : "/usr/share/keyrings/debian-archive-keyring.gpg";
  return { uri, keyring };
}

/**
 * Makes a package source of its own in `directory`, beside the system's, with one suite from the mirror that the
 * system uses.
 *
 * @param types `deb` for packages, `deb-src` for the sources of packages.
 * @throws MayflyError `artifact_missing` if the system has no Debian source to take the mirror from.
 */
export async function separateSource(
  directory: string,
  codename: string,
  suite: string,
  types: "deb" | "deb-src" = "deb",
): Promise<PackageSource> {
  const { uri, keyring } = await debianMirror(codename);
  await makeDirectory(`${directory}/lists/partial`);
  await makeDirectory(`${directory}/cache/archives/partial`);
  await writeText(`${directory}/sources.list`, `${types} [signed-by=${keyring}] ${uri} ${suite} main\n`);
  const set = (name: string, value: string) => ["-o", `${name}=${value}`];
  return {
    name: `the package lists of ${suite}`,
    system: false,
    options: [
      ...set("Dir::Etc::sourcelist", `${directory}/sources.list`),
      ...set("Dir::Etc::sourceparts", "/dev/null"),
      ...set("Dir::Etc::preferences", "/dev/null"),
      ...set("Dir::Etc::preferencesparts", "/dev/null"),
      ...set("Dir::State::Lists", `${directory}/lists`),
      ...set("Dir::Cache", `${directory}/cache`),
      ...set("Acquire::Languages", "none"),
    ],
  };
}

/** @throws MayflyError `root_required` unless this process is root's. */
export function requireRoot(what: string): void {
  if (isRoot()) return;
  throw new MayflyError("root_required", `Cannot ${what}: that needs root`);
}

async function haveCandidates(source: PackageSource, packages: readonly string[]): Promise<boolean> {
  const { stdout } = await runTool(["apt-cache", ...source.options, "policy", ...packages]).catch(() => ({
    stdout: "",
  }));
  const candidates = stdout.match(/^ {2}Candidate: (?!\(none\))/gm) ?? [];
  return candidates.length >= packages.length;
}

/** A dpkg that was killed in the middle leaves its journal; nothing can be installed before it is worked off. */
async function finishInterruptedDpkg(context: StepContext): Promise<void> {
  if (await isDirectoryEmpty("/var/lib/dpkg/updates")) return;
  context.report("finishing an interrupted package installation");
  await runTool(["dpkg", "--configure", "-a"], { env: APT_ENVIRONMENT, deadlineMs: INSTALL_DEADLINE_MS });
}

interface AptRun {
  cwd?: string;
  deadlineMs?: number;
  uninterruptible?: boolean;
}

async function aptGet(
  source: PackageSource,
  words: readonly string[],
  context: StepContext,
  run: AptRun,
): Promise<void> {
  const lock = ["-o", `DPkg::Lock::Timeout=${LOCK_TIMEOUT_SECONDS}`, "-o", "Dpkg::Options::=--force-confold"];
  const signal = context.signal === undefined ? {} : { signal: context.signal };
  const options = { ...run, ...signal, env: APT_ENVIRONMENT, endsWithUs: !run.uninterruptible };
  const onLine = (line: string) => reportStatus(line, context);
  const endMs = performance.now() + LOCK_TIMEOUT_SECONDS * 1000;
  while (true) {
    try {
      await runTool(["apt-get", ...STATUS_OPTIONS, ...lock, ...source.options, ...words], { ...options, onLine });
      return;
    } catch (error) {
      const path = lockedPath(error);
      if (path === undefined || performance.now() > endMs) throw error;
      context.report("waiting for another package tool to end");
      await runTool(["perl", "-e", WAIT_FOR_LOCK, path], { ...signal, endsWithUs: true });
    }
  }
}

/**
 * Waits for a lock of fcntl(2) as apt's are, with the perl that every Debian has: apt-get waits for dpkg's lock by itself, but
 * not for the one on the lists. 7 is F_SETLKW; what is packed is a struct flock of x86-64 with F_WRLCK.
 */
const WAIT_FOR_LOCK =
  'open(F, "+<", $ARGV[0]) or exit; $l = pack("ssx4qqix4", 1, 0, 0, 0, 0); fcntl(F, 7, $l) or die $!';

/** The lock that apt-get could not get, if that is what it failed for. */
function lockedPath(error: unknown): string | undefined {
  if (!(error instanceof MayflyError) || error.code !== "tool_failed") return undefined;
  return /Could not get lock (\/\S*\/lists\/lock)\b/.exec(error.details.stderrTail ?? "")?.[1];
}

/** Lines of APT::Status-Fd (apt's README.progress-reporting): `dlstatus:number:percent:text`, `pmstatus:package:percent:text`. */
function reportStatus(line: string, context: StepContext): void {
  const match = /^(dlstatus|pmstatus):[^:]*(?::[a-z0-9]+)?:([0-9.]+):(.*)$/.exec(line);
  if (match?.[2] !== undefined && match[3] !== undefined) context.report(match[3], Number(match[2]) / 100);
}

function isFetchFailure(error: unknown): error is MayflyError {
  if (!(error instanceof MayflyError) || error.code !== "tool_failed") return false;
  return /Failed to fetch|Unable to fetch|was not found|Unable to locate|no installation candidate|Hash Sum/.test(
    error.details.stderrTail ?? "",
  );
}

function firstError(tail: string): string {
  return (
    tail
      .split("\n")
      .find((line) => line.startsWith("E: "))
      ?.slice(3) ??
    tail.split("\n").pop() ??
    ""
  );
}
