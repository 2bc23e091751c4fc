/** The project's own files beside the program: in a checkout or an installed package, not in a single-file executable. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");

/** Texts of the C sources, headers, Makefile and lists directly in a directory of the checkout, by name; `undefined` without it. */
export function readSources(directory: string): Record<string, string> | undefined {
  const path = join(ROOT, directory);
  if (!existsSync(path)) return undefined;
  const names = readdirSync(path).filter((name) => /^Makefile$|\.(c|h|list)$/.test(name));
  return Object.fromEntries(names.sort().map((name) => [name, readFileSync(join(path, name), "utf8")]));
}
