/** The direction of imports (docs/ARCHITECTURE.md): what a layer does not name here it may not import. */

import { expect, test } from "bun:test";
import { dirname, join } from "node:path";
import { isTest, type Source, sourcesBelow } from "./sources.ts";

const LEAVES = ["qmp", "machine", "agent", "template", "snapshot", "image", "network", "volume"];
const BELOW_DAEMON = ["contract", "sys", ...LEAVES, "engine", "service"];

const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  contract: [],
  sys: ["contract"],
  ...Object.fromEntries(LEAVES.map((leaf) => [leaf, ["contract", "sys"]])),
  engine: ["contract", "sys", ...LEAVES],
  service: ["contract", "sys", ...LEAVES, "engine"],
  daemon: [...BELOW_DAEMON, "setup"],
  setup: ["contract", "sys", "machine", "template"],
  client: ["contract", "sys"],
  cli: ["contract", "sys", "client", "setup"],
};

/** `mayfly daemon` is the daemon: the same executable, which loads it only then. */
const EXCEPTIONS: readonly Import[] = [
  { from: "src/cli/commands/daemon.ts", to: "src/daemon/main.ts" },
  { from: "src/cli/commands/daemon.ts", to: "src/daemon/config.ts" },
  ...[
    ...["engine/open.ts", "engine/interface.ts", "engine/probe.ts", "engine/config.ts", "engine/qemu-costs.ts"],
    "daemon/config.ts",
  ].map((to) => ({ from: "src/cli/engine.ts", to: `src/${to}` })),
];

interface Import {
  from: string;
  to: string;
}

function importsOf(source: Source): Import[] {
  const pattern = /(?:from|import)\s*\(?\s*"(\.{1,2}\/[^"]+)"/g;
  return [...source.text.matchAll(pattern)].map((match) => ({
    from: source.path,
    to: join(dirname(source.path), match[1] ?? ""),
  }));
}

function layerOf(path: string): string {
  return path.split("/")[1] ?? "";
}

const sources = sourcesBelow(["src"], [".ts"]).filter((source) => !isTest(source));
const imports = sources.flatMap(importsOf).filter(({ to }) => to.startsWith("src/"));

test("every directory of src is a layer with a place", () => {
  const layers = new Set(sources.filter(({ path }) => path.split("/").length > 2).map(({ path }) => layerOf(path)));
  expect([...layers].filter((layer) => !(layer in MAY_IMPORT))).toEqual([]);
});

test("imports go down only", () => {
  const wrong = imports.filter(({ from, to }) => {
    const [own, other] = [layerOf(from), layerOf(to)];
    const isExcepted = EXCEPTIONS.some((entry) => entry.from === from && entry.to === to);
    return own !== other && !isExcepted && !MAY_IMPORT[own]?.includes(other);
  });
  expect(wrong).toEqual([]);
});

test("no module imports itself in a circle within its layer", () => {
  const next = new Map<string, string[]>();
  for (const source of sources) {
    // Types are gone at run time and bind nothing.
    const values = source.text.replaceAll(/(?:import|export) type [^;]*;/g, "");
    next.set(
      source.path,
      importsOf({ ...source, text: values }).map(({ to }) => to),
    );
  }
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: string[]): void => {
    if (trail.includes(path)) circles.push([...trail.slice(trail.indexOf(path)), path].join(" -> "));
    if (trail.includes(path) || done.has(path)) return;
    for (const to of next.get(path) ?? []) visit(to, [...trail, path]);
    done.add(path);
  };
  for (const source of sources) visit(source.path, []);
  expect(circles).toEqual([]);
});

test("nothing but the standard library and the declared packages is imported", () => {
  const allowed = /^(\.{1,2}\/|node:|bun:|bun$|zod$|cli-table3$|undici$|ws$)/;
  const names = sources.flatMap((source) =>
    [...source.text.matchAll(/^(?:import|export)[^"\n;]*from "([^"]+)"/gm)].map(
      (match) => `${source.path}: ${match[1]}`,
    ),
  );
  expect(names.filter((name) => !allowed.test(name.split(": ")[1] ?? ""))).toEqual([]);
});
