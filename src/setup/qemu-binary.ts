/** What a QEMU program is: its version, kind, and where its firmware lies. */

import { dirname, resolve } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { identityOf } from "../sys/paths.ts";
import { runTool } from "../sys/tool.ts";
import type { QemuArtifact } from "./artifacts.ts";

/** What a build of a lean QEMU leaves beside its `bin`. */
export const BUILD_FILE = "build.json";

/** From this version on a clone can open its template's memory file read-only. */
export const MINIMUM_QEMU = [8, 2] as const;

/**
 * Runs `--version` of a QEMU and looks where its firmware lies.
 *
 * @throws MayflyError `qemu_not_found` if there is none, or it does not run (a library is missing), or is no QEMU.
 */
export async function describeQemu(path: string, origin: QemuArtifact["origin"]): Promise<QemuArtifact> {
  const identity = await identityOf(path);
  if (identity === undefined || identity.isDirectory) {
    throw new MayflyError("qemu_not_found", `Cannot use ${path} as QEMU: there is no such file`, { details: { path } });
  }
  const { stdout } = await runTool([path, "--version"], { deadlineMs: 30_000 }).catch((cause: unknown) => {
    const tail = cause instanceof MayflyError ? (cause.details.stderrTail ?? cause.message) : String(cause);
    throw new MayflyError("qemu_not_found", `Cannot use ${path} as QEMU: it does not run: ${tail}`, {
      details: { path, stderrTail: tail },
      cause,
    });
  });
  const version = /^QEMU emulator version (\d+(?:\.\d+)+)/.exec(stdout)?.[1];
  if (version === undefined) {
    throw new MayflyError(
      "qemu_not_found",
      `Cannot use ${path} as QEMU: it says ${JSON.stringify(stdout.slice(0, 80))}`,
      {
        details: { path },
      },
    );
  }
  return {
    path,
    version,
    firmwarePaths: await firmwareBeside(path),
    kind: (await isBuiltHere(path)) ? "lean" : path.endsWith("-microvm") ? "microvm" : "full",
    origin,
    sizeBytes: identity.sizeBytes,
    mtimeMs: identity.mtimeMs,
  };
}

/** Whether a version is at least {@link MINIMUM_QEMU}; Debian's epoch and suffix may be there. */
export function isRecentQemu(version: string): boolean {
  const [major = 0, minor = 0] = version
    .replace(/^\d+:/, "")
    .split(/[.+~-]/)
    .map(Number);
  return major > MINIMUM_QEMU[0] || (major === MINIMUM_QEMU[0] && minor >= MINIMUM_QEMU[1]);
}

/** Whether the file at a QEMU's path is still the one that was described. */
export async function isUnchanged(qemu: QemuArtifact): Promise<boolean> {
  const identity = await identityOf(qemu.path);
  return identity?.sizeBytes === qemu.sizeBytes && identity.mtimeMs === qemu.mtimeMs;
}

/** Whether a program lies where a build puts one, with what is known of its build beside it. */
async function isBuiltHere(path: string): Promise<boolean> {
  return (await identityOf(resolve(dirname(path), "..", BUILD_FILE))) !== undefined;
}

/** The system's own QEMU knows its directories; an unpacked one has them beside its `bin`. */
async function firmwareBeside(path: string): Promise<string[]> {
  const share = resolve(dirname(path), "../share");
  if (share === "/usr/share" || share === "/usr/local/share") return [];
  const found = [];
  for (const directory of [`${share}/qemu`, `${share}/seabios`]) {
    if ((await identityOf(directory))?.isDirectory) found.push(directory);
  }
  return found;
}
