/** Gets Debian packages and unpacks them without installing them. */

import { filesBelow, makeDirectory, removePath } from "../sys/paths.ts";
import { runTool } from "../sys/tool.ts";
import { downloadPackages, type PackageSource } from "./debian.ts";
import type { StepContext } from "./step.ts";

/**
 * Downloads packages (`name=version`) and unpacks all of them into `directory/root`; the packages themselves are removed.
 *
 * @returns the `Depends` field of each, in the order of `specs`' names.
 * @throws MayflyError `tool_failed`, `cancelled`.
 */
export async function unpackPackages(
  source: PackageSource,
  specs: readonly string[],
  directory: string,
  context: StepContext,
): Promise<Map<string, string>> {
  const debs = `${directory}/debs`;
  await makeDirectory(debs);
  await downloadPackages(source, specs, debs, context);
  const depends = new Map<string, string>();
  for (const file of await filesBelow(debs)) {
    const path = `${debs}/${file}`;
    context.report(`unpacking ${file}`);
    const signal = context.signal === undefined ? {} : { signal: context.signal };
    await runTool(["dpkg-deb", "-x", path, `${directory}/root`], signal);
    const { stdout } = await runTool(["dpkg-deb", "-f", path, "Depends"], signal);
    depends.set(file.split("_")[0] ?? file, stdout.trim());
  }
  await removePath(debs);
  return depends;
}

/** Names of the shared-library packages in a `Depends` field; of alternatives the first. */
export function libraryPackages(depends: string): string[] {
  return depends
    .split(",")
    .map((entry) => entry.trim().split(/[\s|(:]/)[0] ?? "")
    .filter((name) => name.startsWith("lib"));
}
