/** How the sources look: sizes, names, and who may touch the outside. The linter checks what it can; this is the rest. */

import { expect, test } from "bun:test";
import { generatedModule } from "./generate-guest-sources.ts";
import { codeOf, isTest, readSource, type Source, sourcesBelow } from "./sources.ts";

const MAX_LINES = 400;
/** Only src/sys touches the runtime, the processes, sockets and files of the host. */
const OUTSIDE =
  /\bBun\.|from "(bun|bun:ffi|bun:sqlite|node:fs|node:fs\/promises|node:child_process|node:net|node:os|node:http|node:tty)"|"\/proc\//;
/** The library's transports are what differs between Bun and Node; a macro's import is resolved while translating. */
const OUTSIDE_EXCEPTIONS = /^src\/client\/transport(-\w+)?\.ts$/;
const FORBIDDEN_NAMES = /\b(class|function|interface|type|const|let)\s+\w*(Manager|Helper|Handler|Util|Utils)s?\b/;
const FORBIDDEN_FILES = /(^|[/-])(utils?|helpers?|managers?|common|misc)([/.-]|$)/;
const UNFINISHED = /\b(TODO|FIXME|XXX|HACK)\b/;
const ESCAPES = /@ts-(ignore|nocheck|expect-error)|\bas unknown as\b|\bas any\b/;
const SLEEPS = /\bBun\.sleep|timers\/promises/;

const typescript = sourcesBelow(["src", "tests", "bench"], [".ts"]);
const c = sourcesBelow(["guest", "launcher"], [".c", ".h"]);
const product = typescript.filter((source) => !isTest(source) && source.path.startsWith("src/"));
const self = "tests/architecture/";

/** `path:line: text` of every line in which something was found. */
function find(sources: readonly Source[], matches: (line: string, source: Source) => boolean): string[] {
  return sources.flatMap((source) =>
    source.lines.flatMap((line, index) =>
      matches(line, source) ? [`${source.path}:${index + 1}: ${line.trim()}`] : [],
    ),
  );
}

test(`no file has more than ${MAX_LINES} lines`, () => {
  const long = [...typescript, ...c].filter(({ lines }) => lines.length > MAX_LINES + 1);
  expect(long.map(({ path, lines }) => `${path}: ${lines.length - 1}`)).toEqual([]);
});

test("only src/sys touches the runtime, files, processes and sockets", () => {
  const others = product.filter(({ path }) => !path.startsWith("src/sys/") && !OUTSIDE_EXCEPTIONS.test(path));
  const comment = /^\s*(\*|\/\/|\/\*)/;
  expect(find(others, (line) => OUTSIDE.test(line) && !comment.test(line) && !line.startsWith("import type "))).toEqual(
    [],
  );
});

test("names say what things are", () => {
  expect([...typescript, ...c].map(({ path }) => path).filter((path) => FORBIDDEN_FILES.test(path))).toEqual([]);
  expect(find(typescript, (line, { path }) => FORBIDDEN_NAMES.test(line) && !path.startsWith(self))).toEqual([]);
});

test("nothing is left unfinished, no check is switched off", () => {
  const others = [...typescript, ...c].filter(({ path }) => !path.startsWith(self));
  expect(find(others, (line) => UNFINISHED.test(line))).toEqual([]);
  expect(find(others, (line) => ESCAPES.test(line))).toEqual([]);
});

test("the list of sources that an executable carries is up to date", () => {
  const remedy = "run: bun tests/architecture/generate-guest-sources.ts";
  const generated = readSource("src/setup/guest-sources.gen.ts").text;
  expect(generated === generatedModule() ? "" : remedy).toBe("");
});

test("nothing sleeps", () => {
  expect(find(product, (line) => SLEEPS.test(line))).toEqual([]);
});

test("every exported function and class says what it does", () => {
  const bare = product.flatMap((source) => {
    const code = codeOf(source);
    return source.lines.flatMap((line, index) => {
      const name = /^export (?:async )?(?:function\*?|class) (\w+)/.exec(line)?.[1];
      if (name === undefined || (code[index] ?? "").trim() === "") return [];
      const isOverload = new RegExp(`^export (async )?function ${name}\\b.*;$`).test(source.lines[index - 1] ?? "");
      return isOverload || source.lines[index - 1]?.trimEnd().endsWith("*/")
        ? []
        : [`${source.path}:${index + 1}: ${name}`];
    });
  });
  expect(bare).toEqual([]);
});

test("a product's code speaks of nothing but itself", () => {
  const docs = sourcesBelow(["docs", "packaging"], [".md", ".service", ".socket"]);
  const workplace = /\/work\/|\bdeb\.debian\.org|registry\.npmjs/;
  const others = [...typescript, ...c, ...docs].filter(({ path }) => !path.startsWith(self));
  expect(find(others, (line) => workplace.test(line))).toEqual([]);
});
