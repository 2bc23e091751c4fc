/** The project's own source files, for the tests that look at them. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** A source file. */
export interface Source {
  /** Relative to the checkout, e.g. `src/engine/clone.ts`. */
  path: string;
  text: string;
  lines: readonly string[];
}

/** Root of the checkout. */
export const ROOT = join(import.meta.dir, "../..");

/** All files of some kinds below directories of the checkout, generated ones left out. */
export function sourcesBelow(directories: readonly string[], endings: readonly string[]): Source[] {
  return directories.flatMap((directory) => {
    const names = readdirSync(join(ROOT, directory), { recursive: true, encoding: "utf8" });
    return names
      .filter((name) => endings.some((ending) => name.endsWith(ending)) && !name.endsWith(".gen.ts"))
      .map((name) => readSource(`${directory}/${name}`));
  });
}

/** One file of the checkout. */
export function readSource(path: string): Source {
  const text = readFileSync(join(ROOT, path), "utf8");
  return { path, text, lines: text.split("\n") };
}

/** Whether a file holds tests, or serves only them. */
export function isTest(source: Source): boolean {
  return (
    source.path.endsWith(".test.ts") ||
    source.path.startsWith("tests/") ||
    /\/(fake|test)-|-builder\.ts$/.test(source.path)
  );
}

/** A source's text without comments and the contents of strings, line by line, so that words in them do not count. */
export function codeOf(source: Source): string[] {
  const blank = (match: string) => match.replaceAll(/[^\n]/g, " ");
  const pattern = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g;
  return source.text
    .replaceAll(pattern, (match) => (match.startsWith("/") ? blank(match) : `"${blank(match.slice(2))}"`))
    .split("\n");
}
