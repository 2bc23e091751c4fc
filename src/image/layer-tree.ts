/**
 * The tree that an image's layers make, in memory, as the headers of their tarballs tell it (OCI image-spec, "Applying Changesets"). It says
 * what of the layers below has to be removed before a layer is unpacked, and refuses what is hostile or makes no sense. No link is ever
 * followed: a directory that a layer implies (`lib` of `lib/x`) takes the place of a link of a layer below, as it does for overlayfs and so
 * for podman and docker; within one layer a name below a link is refused.
 */

import type { TarEntry, TarEntryType } from "./tar-reader.ts";
import { checkSymlink, pathParts, type Refusal, TarCount, type TarLimits } from "./tar-rules.ts";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** Of AUFS itself; nobody else reads them, and nobody unpacks them. */
const AUFS = ".wh..wh.";
const LEAVES: readonly TarEntryType[] = ["file", "hardlink", "symlink", "character", "block", "fifo"];

/** Whatever is no directory, in one number: its type and its layer, since there may be two million of them. */
type Leaf = number;
const leafOf = (type: TarEntryType, layer: number): Leaf => layer * LEAVES.length + LEAVES.indexOf(type);
const typeOf = (leaf: Leaf): TarEntryType => LEAVES[leaf % LEAVES.length] ?? "file";
const layerOf = (leaf: Leaf): number => Math.floor(leaf / LEAVES.length);

class Directory {
  readonly children = new Map<string, Directory | Leaf>();
  /** The last layer that has an entry for it, or that put something into it or below. */
  entryLayer = -1;
  touchedLayer: number;

  constructor(
    readonly madeBy: number,
    readonly parent: Directory | undefined,
    readonly name: string,
  ) {
    this.touchedLayer = madeBy;
  }

  /** Of itself, or of a name in it; the root's is empty. */
  path(name?: string): string {
    const parts = name === undefined ? [] : [name];
    for (let node: Directory = this; node.parent !== undefined; node = node.parent) parts.push(node.name);
    return parts.reverse().join("/");
  }

  /** Whether it is still there, and all above it. */
  get isAttached(): boolean {
    if (this.parent === undefined) return true;
    return this.parent.children.get(this.name) === this && this.parent.isAttached;
  }
}

/** What unpacking a layer takes besides its tarball. */
export interface LayerChanges {
  /** Paths of what the layers below have and this one removes or replaces, relative to the root. */
  removals: string[];
  /** Directories of the layers below in which something changes without this layer having an entry for them: they keep their attributes. */
  keptDirectories: string[];
}

/** The tree; layers are added from the lowest, entries in the order of their tarball. */
export class LayerTree {
  readonly #root = new Directory(-1, undefined, "");
  readonly #count: TarCount;
  #layer = -1;
  #refused: Refusal;
  #removals: string[] = [];
  #changed = new Set<Directory>();

  constructor(limits: TarLimits, refused: Refusal) {
    this.#count = new TarCount(limits);
    this.#refused = refused;
  }

  get entries(): number {
    return this.#count.entries;
  }

  get contentBytes(): number {
    return this.#count.contentBytes;
  }

  /** Whether a layer had an entry for the root itself. */
  get hasRoot(): boolean {
    return this.#root.entryLayer >= 0;
  }

  /** Begins the next layer. */
  beginLayer(refused: Refusal): void {
    this.#layer++;
    this.#refused = refused;
    this.#removals = [];
    this.#changed = new Set();
  }

  /** Adds an entry of the layer. @throws MayflyError `image_invalid` naming the entry and what is wrong with it. */
  add(entry: TarEntry): void {
    const parts = pathParts(entry, entry.name, "name", this.#refused);
    if (entry.type === "symlink") checkSymlink(entry, this.#refused);
    const name = parts.at(-1);
    if (parts.slice(0, -1).some((part) => part.startsWith(WHITEOUT))) {
      throw this.#refused(entry, `it lies below a name that begins with ${WHITEOUT}`);
    }
    this.#count.add(entry, this.#refused);
    if (name?.startsWith(WHITEOUT)) this.#whiteout(entry, parts.slice(0, -1), name);
    else this.#place(entry, parts);
  }

  /** Ends the layer. @returns what has to be done before and after its tarball is unpacked. */
  endLayer(): LayerChanges {
    const kept = [...this.#changed].filter((directory) => {
      if (directory === this.#root && !this.hasRoot) return false;
      return directory.madeBy < this.#layer && directory.entryLayer < this.#layer && directory.isAttached;
    });
    return { removals: this.#removals, keptDirectories: kept.map((directory) => directory.path()) };
  }

  #place(entry: TarEntry, parts: readonly string[]): void {
    const name = parts.at(-1);
    if (name === undefined) {
      if (entry.type !== "directory") throw this.#refused(entry, "the root is not a directory");
      this.#root.entryLayer = this.#layer;
      return;
    }
    if (entry.type === "hardlink") this.#checkHardLink(entry);
    const parent = this.#parentOf(entry, parts);
    const before = parent.children.get(name);
    if (before !== undefined) this.#replace(entry, parent, name, before);
    if (!(before instanceof Directory && entry.type === "directory")) this.#changed.add(parent);
    if (entry.type !== "directory") {
      parent.children.set(name, leafOf(entry.type, this.#layer));
      return;
    }
    const directory = before instanceof Directory ? before : this.#make(entry, parent, name);
    directory.touchedLayer = this.#layer;
    directory.entryLayer = this.#layer;
  }

  /** A name may be given again in one layer (the later one counts), but not as something else; what lies below gives way. */
  #replace(entry: TarEntry, parent: Directory, name: string, before: Directory | Leaf): void {
    const isDirectory = before instanceof Directory;
    const fromThis = isDirectory ? before.touchedLayer === this.#layer : layerOf(before) === this.#layer;
    const same = isDirectory ? entry.type === "directory" : kindOf(typeOf(before)) === kindOf(entry.type);
    if (fromThis && !same) {
      throw this.#refused(entry, `it is there already, as a ${isDirectory ? "directory" : typeOf(before)}`);
    }
    if (isDirectory !== (entry.type === "directory")) this.#remove(parent, name);
  }

  /** The directory that an entry lies in; those on the way are made, as the unpacker will. */
  #parentOf(entry: TarEntry, parts: readonly string[]): Directory {
    let directory = this.#root;
    for (const part of parts.slice(0, -1)) {
      const child = directory.children.get(part);
      if (child instanceof Directory) {
        directory = child;
        directory.touchedLayer = this.#layer;
        continue;
      }
      if (child !== undefined) {
        if (layerOf(child) === this.#layer) {
          const path = JSON.stringify(directory.path(part));
          throw this.#refused(entry, `it lies below ${path}, which is a ${typeOf(child)}`);
        }
        this.#remove(directory, part);
      }
      this.#changed.add(directory);
      directory = this.#make(entry, directory, part);
    }
    return directory;
  }

  #make(entry: TarEntry, parent: Directory, name: string): Directory {
    this.#count.addDirectory(entry, this.#refused);
    const directory = new Directory(this.#layer, parent, name);
    parent.children.set(name, directory);
    return directory;
  }

  /** Takes something of the layers below away, now here and before the layer is unpacked there. */
  #remove(parent: Directory, name: string): void {
    parent.children.delete(name);
    this.#changed.add(parent);
    this.#removals.push(parent.path(name));
  }

  #whiteout(entry: TarEntry, parents: readonly string[], name: string): void {
    const target = name === OPAQUE ? undefined : name.slice(WHITEOUT.length);
    if (target !== undefined && name.startsWith(AUFS)) return;
    if (target === "" || target === "." || target === "..")
      throw this.#refused(entry, "it removes nothing that has a name");
    let directory = this.#root;
    for (const part of parents) {
      const child = directory.children.get(part);
      if (child === undefined) return;
      if (!(child instanceof Directory)) {
        const path = JSON.stringify(directory.path(part));
        throw this.#refused(entry, `it removes what lies below ${path}, which is a ${typeOf(child)}`);
      }
      directory = child;
    }
    if (target === undefined) this.#removeBelow(directory);
    else this.#removeLower(directory, target);
  }

  /** Removes all that the layers below have in a directory; what this layer has put there stays, whatever came first. */
  #removeBelow(directory: Directory): void {
    for (const name of [...directory.children.keys()]) this.#removeLower(directory, name);
  }

  #removeLower(parent: Directory, name: string): void {
    const child = parent.children.get(name);
    if (child === undefined) return;
    if (child instanceof Directory) {
      if (child.touchedLayer === this.#layer) this.#removeBelow(child);
      else this.#remove(parent, name);
    } else if (layerOf(child) !== this.#layer) {
      this.#remove(parent, name);
    }
  }

  #checkHardLink(entry: TarEntry): void {
    const parts = pathParts(entry, entry.link, "link target", this.#refused);
    let node: Directory | Leaf | undefined = this.#root;
    for (const part of parts) node = node instanceof Directory ? node.children.get(part) : undefined;
    if (node instanceof Directory)
      throw this.#refused(entry, `it links to the directory ${JSON.stringify(entry.link)}`);
    if (node === undefined) {
      throw this.#refused(entry, `it links to ${JSON.stringify(entry.link)}, which is not there before it`);
    }
  }
}

/** A hard link is whatever it links to; for the question of replacing, a file. */
function kindOf(type: TarEntryType): TarEntryType {
  return type === "hardlink" ? "file" : type;
}
