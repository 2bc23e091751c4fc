/** The fragment of the minimal kernel's configuration, and whether a kernel's build has kept all of it. */

import { MayflyError } from "../contract/errors.ts";

/** What a configuration says, by the options' names with their `CONFIG_`: `y`, `m`, `n`, a number, or a text in its quotes. */
export type KernelConfig = ReadonlyMap<string, string>;

/** Options that Linux 6.9 has given other names; a kernel knows one of both. */
const RENAMED: Readonly<Record<string, string>> = {
  CONFIG_PAGE_TABLE_ISOLATION: "CONFIG_MITIGATION_PAGE_TABLE_ISOLATION",
  CONFIG_RETPOLINE: "CONFIG_MITIGATION_RETPOLINE",
  CONFIG_RETHUNK: "CONFIG_MITIGATION_RETHUNK",
  CONFIG_CPU_UNRET_ENTRY: "CONFIG_MITIGATION_UNRET_ENTRY",
  CONFIG_CPU_IBPB_ENTRY: "CONFIG_MITIGATION_IBPB_ENTRY",
  CONFIG_CPU_IBRS_ENTRY: "CONFIG_MITIGATION_IBRS_ENTRY",
  CONFIG_CPU_SRSO: "CONFIG_MITIGATION_SRSO",
  CONFIG_SLS: "CONFIG_MITIGATION_SLS",
};

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

/** The text of a fragment with the newer names besides, for kernels that know only these; Kconfig passes over what it does not know. */
export function withNewNames(text: string): string {
  const renamed = [...parseKernelConfig(text)].flatMap(([name, value]) => {
    const later = RENAMED[name];
    return later === undefined ? [] : [`${later}=${value}\n`];
  });
  return `${text}${renamed.join("")}`;
}

/**
 * Makes sure that the final configuration has every option of the fragment: Kconfig drops without a word what it does not know or what
 * depends on something that is off.
 *
 * @throws MayflyError `artifact_missing` naming each option with both values.
 */
export function requireOptions(fragment: KernelConfig, final: KernelConfig, version: string): void {
  const problems = [...fragment].flatMap(([name, wanted]) => {
    const got = final.get(name) ?? final.get(RENAMED[name] ?? "") ?? "n";
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
