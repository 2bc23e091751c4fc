/** Which tarballs are taken for a root file system: none that reaches outside of it, or grows beyond a limit. */

import { MayflyError } from "../contract/errors.ts";
import type { TarEntry, TarEntryType } from "./tar-reader.ts";

/** Bounds of an image. */
export interface TarLimits {
  /** Sum of all files' sizes, holes included. */
  contentBytes: number;
  entries: number;
}

/** Characters of a whole name and of one part; less than PATH_MAX, which has to hold the place of unpacking too. */
const MAX_NAME = 3500;
const MAX_PART = 255;

/**
 * Checks entries in their order, as an unpacker sees them. A name may be given again (the later one counts), but not as
 * something else, and nothing may be put below something that is not a directory.
 */
export class TarRules {
  readonly #limits: TarLimits;
  readonly #types = new Map<string, TarEntryType>();
  /** Sum of the files' sizes so far. */
  contentBytes = 0;
  /** Number of entries so far. */
  entries = 0;

  constructor(limits: TarLimits) {
    this.#limits = limits;
  }

  /** @throws MayflyError `image_invalid` naming the entry and what is wrong with it. */
  check(entry: TarEntry): void {
    const path = this.#path(entry, entry.name, "name");
    this.#checkParents(entry, path);
    const before = this.#types.get(path);
    if (before !== undefined && kindOf(before) !== kindOf(entry.type)) {
      throw refused(entry, `it is there already, as a ${before}`);
    }
    if (path === "" && entry.type !== "directory") throw refused(entry, "the root is not a directory");
    if (entry.type === "hardlink") this.#checkHardLink(entry);
    if (entry.type === "symlink" && (entry.link === "" || entry.link.length >= 4096)) {
      throw refused(entry, `its target has ${entry.link.length} characters`);
    }
    this.#types.set(path, entry.type);
    this.entries++;
    if (entry.type === "file") this.contentBytes += entry.sizeBytes;
    if (this.entries > this.#limits.entries)
      throw refused(entry, `it is beyond the limit of ${this.#limits.entries} entries`);
    if (this.contentBytes > this.#limits.contentBytes) {
      throw refused(
        entry,
        `the files up to it have ${this.contentBytes} bytes, the limit is ${this.#limits.contentBytes}`,
      );
    }
  }

  #path(entry: TarEntry, name: string, what: string): string {
    if (name === "") throw refused(entry, `it has no ${what}`);
    if (name.startsWith("/")) throw refused(entry, `its ${what} is absolute`);
    if (name.length > MAX_NAME)
      throw refused(entry, `its ${what} has ${name.length} characters, the limit is ${MAX_NAME}`);
    const parts = name.split("/").filter((part) => part !== "" && part !== ".");
    if (parts.includes("..")) throw refused(entry, `its ${what} has ".." in it`);
    if (parts.some((part) => part.length > MAX_PART)) {
      throw refused(entry, `its ${what} has a part longer than ${MAX_PART} characters`);
    }
    return parts.join("/");
  }

  /** Directories above that no entry names are made by the unpacker; from then on they are directories. */
  #checkParents(entry: TarEntry, path: string): void {
    for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1)) {
      const parent = path.slice(0, slash);
      const type = this.#types.get(parent);
      if (type === undefined) this.#types.set(parent, "directory");
      else if (type !== "directory")
        throw refused(entry, `it lies below ${JSON.stringify(parent)}, which is a ${type}`);
    }
  }

  #checkHardLink(entry: TarEntry): void {
    const target = this.#path(entry, entry.link, "link target");
    const type = this.#types.get(target);
    if (type === undefined)
      throw refused(entry, `it links to ${JSON.stringify(entry.link)}, which is not in the tarball before it`);
    if (type === "directory") throw refused(entry, `it links to the directory ${JSON.stringify(entry.link)}`);
  }
}

/** A hard link is whatever it links to; for the question of replacing, a file. */
function kindOf(type: TarEntryType): TarEntryType {
  return type === "hardlink" ? "file" : type;
}

function refused(entry: TarEntry, why: string): MayflyError {
  return new MayflyError(
    "image_invalid",
    `Cannot import the tarball: entry ${JSON.stringify(shown(entry.name))}: ${why}`,
    {
      details: { entry: shown(entry.name) },
    },
  );
}

/** A name for a message: as UTF-8 where it is, not too long. */
function shown(name: string): string {
  const text = Buffer.from(name, "latin1").toString("utf8");
  return text.length <= 200 ? text : `${text.slice(0, 197)}...`;
}
