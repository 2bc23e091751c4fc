/** The fragment of the minimal kernel's configuration, and whether a kernel's build has kept all of it. */

import { MayflyError } from "../contract/errors.ts";

/** What a configuration says, by the options' names with their `CONFIG_`: `y`, `m`, `n`, a number, or a text in its quotes. */
export type KernelConfig = ReadonlyMap<string, string>;

/**
 * Reads a kernel's `.config` or a fragment of one: `CONFIG_X=value`, `# CONFIG_X is not set`; other lines that begin with `#` are
 * comments.
 *
 * @throws MayflyError `artifact_missing` naming every line that is none of these, and options that are there twice.
 */
export function parseKernelConfig(text: string): KernelConfig {
  const options = new Map<string, string>();
  const problems: string[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    const [, unset, name, value] = /^# (CONFIG_\w+) is not set$|^(CONFIG_\w+)=(.+)$/.exec(line.trim()) ?? [];
    const key = unset ?? name;
    if (key === undefined) {
      if (line.trim() !== "" && !line.startsWith("#")) problems.push(`line ${index + 1} is no option: ${line}`);
      continue;
    }
    if (options.has(key)) problems.push(`line ${index + 1} has ${key} once more`);
    options.set(key, value ?? "n");
  }
  if (problems.length === 0) return options;
  throw new MayflyError("artifact_missing", `Cannot read a kernel configuration: ${problems.join("; ")}`, {
    details: { problems },
  });
}

/**
 * Makes sure that the final configuration has every option of the fragment: Kconfig drops without a word what it does not know or what
 * depends on something that is off.
 *
 * @throws MayflyError `artifact_missing` naming each option with both values.
 */
export function requireOptions(fragment: KernelConfig, final: KernelConfig, version: string): void {
  const problems = [...fragment].flatMap(([name, wanted]) => {
    const got = final.get(name) ?? "n";
    return got === wanted ? [] : [`${name} is ${got}, not ${wanted}`];
  });
  if (problems.length === 0) return;
  throw new MayflyError(
    "artifact_missing",
    `Cannot configure Linux ${version} as guest kernel: ${problems.join("; ")}`,
    {
      details: { problems },
    },
  );
}
