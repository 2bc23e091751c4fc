/**
 * Writes src/setup/guest-sources.gen.ts, the list of C sources that a single-file executable carries.
 * Run it after a source file was added or removed: `bun tests/architecture/generate-guest-sources.ts`.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { readSources } from "../../src/sys/checkout.ts";
import { ROOT } from "./sources.ts";

/** The generated module for the sources as they are now. */
export function generatedModule(): string {
  const groups = [
    { constant: "AGENT", directory: "guest/agent" },
    { constant: "LAUNCHER", directory: "launcher" },
  ];
  const imports: string[] = [];
  const constants: string[] = [];
  for (const { constant, directory } of groups) {
    const names = Object.keys(readSources(directory) ?? {});
    constants.push(`export const ${constant}: Readonly<Record<string, string>> = {`);
    for (const [index, name] of names.entries()) {
      const local = `${constant.toLowerCase()}${index}`;
      imports.push(`import ${local} from "../../${directory}/${name}" with { type: "text" };`);
      constants.push(`  "${name}": ${local},`);
    }
    constants.push("};", "");
  }
  const head = "// Written by tests/architecture/generate-guest-sources.ts; see guest-sources.ts.";
  return [head, ...imports, "", ...constants].join("\n");
}

if (import.meta.main) writeFileSync(join(ROOT, "src/setup/guest-sources.gen.ts"), generatedModule());
