/** Which names an entry of a tarball may have, and how many entries and bytes there may be: rules that need no other entry. */

import { MayflyError } from "../contract/errors.ts";
import type { TarEntry } from "./tar-reader.ts";

/** Bounds of an image, over all its layers. */
export interface TarLimits {
  /** Sum of all files' sizes, holes included. */
  contentBytes: number;
  entries: number;
  /** Sum of the lengths of all names, which are kept in memory while it is unpacked. */
  nameBytes: number;
}

/** Characters of a whole name; less than PATH_MAX, which has to hold the place of unpacking too. */
const MAX_NAME = 3500;
/** Of one part: one less than the kernel's limit, since mkfs.erofs before 1.6 loses the last of 255. */
const MAX_PART = 254;
const MAX_LINK = 4095;

/** Says that an entry is refused, and why. */
export type Refusal = (entry: TarEntry, why: string) => MayflyError;

/**
 * A name in its parts, `.` and empty ones left out; none is the root.
 * @throws MayflyError `image_invalid`: empty, absolute, too long, or with a `..` in it.
 */
export function pathParts(entry: TarEntry, name: string, what: string, refused: Refusal): string[] {
  if (name === "") throw refused(entry, `it has no ${what}`);
  if (name.startsWith("/")) throw refused(entry, `its ${what} is absolute`);
  if (name.length > MAX_NAME) {
    throw refused(entry, `its ${what} has ${name.length} characters, the limit is ${MAX_NAME}`);
  }
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) throw refused(entry, `its ${what} has ".." in it`);
  if (parts.some((part) => part.length > MAX_PART)) {
    throw refused(entry, `its ${what} has a part longer than ${MAX_PART} characters`);
  }
  return parts;
}

/** @throws MayflyError `image_invalid` for a symbolic link without a target, or with one that no kernel takes. */
export function checkSymlink(entry: TarEntry, refused: Refusal): void {
  if (entry.link !== "" && entry.link.length <= MAX_LINK) return;
  throw refused(entry, `its target has ${entry.link.length} characters`);
}

/** Counts entries, the bytes of their files and those of their names. */
export class TarCount {
  readonly #limits: TarLimits;
  contentBytes = 0;
  entries = 0;
  #nameBytes = 0;
  #directories = 0;

  constructor(limits: TarLimits) {
    this.#limits = limits;
  }

  /** @throws MayflyError `image_invalid` for the entry that goes beyond a limit. */
  add(entry: TarEntry, refused: Refusal): void {
    const { contentBytes, nameBytes } = this.#limits;
    this.entries++;
    this.#nameBytes += entry.name.length + entry.link.length;
    if (entry.type === "file") this.contentBytes += entry.sizeBytes;
    this.#checkNumber(entry, refused);
    if (this.#nameBytes > nameBytes) throw refused(entry, `the names up to it have more than ${nameBytes} bytes`);
    if (this.contentBytes > contentBytes) {
      throw refused(entry, `the files up to it have ${this.contentBytes} bytes, the limit is ${contentBytes}`);
    }
  }

  /** A directory was made for an entry, its own or one above that no entry names: one name can imply many. */
  addDirectory(entry: TarEntry, refused: Refusal): void {
    this.#directories++;
    this.#checkNumber(entry, refused);
  }

  #checkNumber(entry: TarEntry, refused: Refusal): void {
    const { entries } = this.#limits;
    if (this.entries > entries || this.#directories > entries) {
      throw refused(entry, `it is beyond the limit of ${entries} entries`);
    }
  }
}

/** Makes the refusals of one tarball. @param what names it: `the tarball`, `layer 2 of 5`. */
export function refusalOf(what: string): Refusal {
  return (entry, why) =>
    new MayflyError("image_invalid", `Cannot unpack ${what}: entry ${JSON.stringify(shownName(entry.name))}: ${why}`, {
      details: { entry: shownName(entry.name) },
    });
}

/** A name for a message: as UTF-8 where it is, not too long. */
export function shownName(name: string): string {
  const text = Buffer.from(name, "latin1").toString("utf8");
  return text.length <= 200 ? text : `${text.slice(0, 197)}...`;
}
