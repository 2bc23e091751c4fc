/**
 * Bun macro (https://bun.com/docs/bundler/macros): runs when a module that imports it is translated or bundled, so that a
 * single-file executable carries the files in itself.
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Texts of the C sources, headers, Makefile and lists directly in a directory of the checkout, by name. */
export function embedSources(directory: string): Record<string, string> {
  const path = join(import.meta.dir, "../..", directory);
  const names = readdirSync(path).filter((name) => /^Makefile$|\.(c|h|list)$/.test(name));
  return Object.fromEntries(names.sort().map((name) => [name, readFileSync(join(path, name), "utf8")]));
}
