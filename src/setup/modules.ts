/** Which kernel modules a guest loads, and in which order, read from the modules themselves. */

import { MayflyError } from "../contract/errors.ts";
import { copyPath, filesBelow, readBytes, readOptional } from "../sys/paths.ts";
import { runTool } from "../sys/tool.ts";

/**
 * Copies the wanted modules and all that they depend on, decompressed, from a kernel's module tree into `target`.
 * Names that are built into the kernel need nothing.
 *
 * @param wanted e.g. from {@link parseModuleList}.
 * @returns file names in the order of loading: each after what it depends on.
 * @throws MayflyError `artifact_missing` naming every module that the kernel has not.
 */
export async function collectModules(tree: string, wanted: readonly WantedModule[], target: string): Promise<string[]> {
  const files = new Map((await filesBelow(tree)).filter(isModule).map((file) => [moduleName(file), file]));
  const builtin = new Set(((await readOptional(`${tree}/modules.builtin`)) ?? "").split("\n").map(moduleName));
  const order: string[] = [];
  const visited = new Set<string>();
  const missing: string[] = [];
  const visit = async (name: string): Promise<void> => {
    if (visited.has(name) || builtin.has(name)) return;
    visited.add(name);
    const file = files.get(name);
    if (file === undefined) {
      missing.push(name);
      return;
    }
    const copy = await decompress(`${tree}/${file}`, `${target}/${name}.ko`);
    for (const dependency of dependencies(await readBytes(copy))) await visit(moduleName(dependency));
    order.push(`${name}.ko`);
  };
  for (const { path, isOptional } of wanted) {
    const name = moduleName(path);
    if (!isOptional || files.has(name)) await visit(name);
  }
  if (missing.length === 0) return order;
  throw new MayflyError("artifact_missing", `The kernel in ${tree} has no module ${missing.join(", ")}`, {
    details: { path: tree, problems: missing },
  });
}

/** A module that a guest loads. */
export interface WantedModule {
  /** Its path below `kernel/` of the module tree, or only its name; `-` and `_` are alike. */
  path: string;
  /** A kernel may lack it. */
  isOptional: boolean;
}

/** Reads a `modules.list`: a module a line, `?` before an optional one, `#` begins a comment. */
export function parseModuleList(text: string): WantedModule[] {
  return text
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter((line) => line !== "")
    .map((line) => ({ path: line.replace(/^\?/, ""), isOptional: line.startsWith("?") }));
}

/** The `depends=` entry of a module's `.modinfo` section (Linux' include/linux/moduleparam.h: NUL-separated `key=value`). */
export function dependencies(module: Uint8Array): string[] {
  const text = Buffer.from(module.buffer, module.byteOffset, module.byteLength).toString("latin1");
  const list = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? "";
  return list.split(",").filter((name) => name !== "");
}

function isModule(file: string): boolean {
  return /\.ko(\.xz|\.zst|\.gz)?$/.test(file);
}

function moduleName(file: string): string {
  const base = file.slice(file.lastIndexOf("/") + 1);
  return base.replace(/\.ko(\.xz|\.zst|\.gz)?$/, "").replaceAll("-", "_");
}

async function decompress(from: string, to: string): Promise<string> {
  const suffix = /\.ko(\.xz|\.zst|\.gz)?$/.exec(from)?.[1] ?? "";
  await copyPath(from, `${to}${suffix}`);
  if (suffix === ".xz") await runTool(["xz", "-d", "-f", `${to}.xz`]);
  if (suffix === ".zst") await runTool(["zstd", "-d", "-q", "-f", "--rm", `${to}.zst`]);
  if (suffix === ".gz") await runTool(["gzip", "-d", "-f", `${to}.gz`]);
  return to;
}
