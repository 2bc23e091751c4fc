/** Files of an unpacked tree as the image sees it: links end within the tree, wherever they point. */

import { hostEntry } from "../sys/host-files.ts";
import { linkTarget, readStart } from "../sys/paths.ts";

/** As many as Linux follows. */
const MAX_LINKS = 40;

/**
 * Where a file below `root` is, links resolved as if that were the root of everything. Nobody else may be changing the tree.
 *
 * @returns a path without links, or `undefined` if there is no such file or it is no regular one.
 */
export async function fileBelow(root: string, path: string): Promise<string | undefined> {
  const left = path.split("/");
  let links = 0;
  let at: string[] = [];
  while (left.length > 0) {
    const part = left.shift();
    if (part === undefined || part === "" || part === ".") continue;
    if (part === "..") {
      at = at.slice(0, -1);
      continue;
    }
    const entry = await hostEntry(`${root}/${[...at, part].join("/")}`, false);
    if (entry?.type === "symlink") {
      links++;
      if (links > MAX_LINKS) return undefined;
      const target = await linkTarget(`${root}/${[...at, part].join("/")}`);
      if (target.startsWith("/")) at = [];
      left.unshift(...target.split("/"));
    } else if (entry?.type === "directory" || (entry?.type === "file" && left.length === 0)) {
      at.push(part);
    } else {
      return undefined;
    }
  }
  const found = `${root}/${at.join("/")}`;
  return (await hostEntry(found, false))?.type === "file" ? found : undefined;
}

/** Contents of a file as {@link fileBelow} finds it. @returns `"too long"` if it has more than `limitBytes`. */
export async function readBelow(
  root: string,
  path: string,
  limitBytes: number,
): Promise<Uint8Array | "too long" | undefined> {
  const found = await fileBelow(root, path);
  if (found === undefined) return undefined;
  const bytes = await readStart(found, limitBytes + 1);
  return bytes.length > limitBytes ? "too long" : bytes;
}
