/** Layers, from the lowest to the topmost, become one tree: every header checked first, every write in a jail. */

import { createHash } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { freeBytes, makeDirectory, setTimes } from "../sys/paths.ts";
import { type PipelineResult, pipeTools } from "../sys/pipeline.ts";
import { runTool } from "../sys/tool.ts";
import { decompression } from "./compression.ts";
import { JAIL_DIRECTORY, jailed } from "./jail.ts";
import { type LayerChanges, LayerTree } from "./layer-tree.ts";
import { TarReader } from "./tar-reader.ts";
import { refusalOf } from "./tar-rules.ts";

/** A layer as a file: its tarball, plain or compressed. */
export interface LayerFile {
  path: string;
  /** What the digest of the uncompressed tarball must be; absent: whatever it is. */
  diffId?: string;
  /** For messages: `the tarball`, `layer 2 of 5`. */
  label: string;
}

/** How unpacking goes on. */
export interface UnpackOptions {
  /** Most bytes that all files may have in sum. */
  limitBytes: number;
  /** Most entries of all tarballs; two million unless told. */
  limitEntries?: number;
  signal?: AbortSignal;
  /** Called as it goes on: which layer (from 1), of how many, and the bytes read of all of them. */
  onProgress?: (layer: number, layers: number, unpackedBytes: number) => void;
}

/** What was unpacked. */
export interface Unpacked {
  /** Of each layer. */
  diffIds: string[];
  /** Entries of all tarballs, and the sum of their files' sizes. */
  entries: number;
  contentBytes: number;
}

const MAX_ENTRIES = 2_000_000;
const MAX_NAME_BYTES = 192 * 2 ** 20;
const DEADLINE_MS = 3_600_000;
/** Left free on the disk: an import must not starve what runs. */
const RESERVE_BYTES = 64 * 2 ** 20;
/** Headers and padding that tarballs may have besides their files' bytes. */
const OVERHEAD_BYTES = 2 ** 30;
const PROGRESS_BYTES = 16 * 2 ** 20;

const ATTRIBUTES = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"];
/**
 * Whiteouts are carried out before, and not unpacked. Directories get their times at the end: an entry further on may lie in one that seems
 * to be complete.
 */
const UNPACK = [
  ...["/usr/bin/tar", "--extract", `--directory=${JAIL_DIRECTORY}`, "--same-owner", "--preserve-permissions"],
  ...[...ATTRIBUTES, "--delay-directory-restore", "--exclude=.wh.*"],
];
/** Writes a tarball of nothing but the named directories themselves. */
const PACK_DIRECTORIES = [
  ...["/usr/bin/tar", "--create", "--format=posix", `--directory=${JAIL_DIRECTORY}`, "--no-recursion"],
  ...[...ATTRIBUTES, "--null", "--verbatim-files-from", "--files-from=-"],
];
const REMOVE = ["/usr/bin/xargs", "-0", "/bin/rm", "-rf", "--"];

/**
 * Unpacks layers into `workplace/tree`, which it makes.
 *
 * The lowest layer is read once, checked as it passes. Each other one is read twice: first its headers and digest are checked, so that
 * what it removes is gone before anything of it is unpacked.
 *
 * @throws MayflyError `image_invalid`, naming layer and entry, also when a digest is not what it must be; `disk_full`; `root_required`;
 * `tool_missing`; `cancelled`. What has been written until then lies in the workplace.
 */
export async function unpackLayers(
  workplace: string,
  layers: readonly LayerFile[],
  options: UnpackOptions,
): Promise<Unpacked> {
  await makeDirectory(`${workplace}/tree`);
  await makeDirectory(`${workplace}/jail`);
  return new Unpacking(workplace, layers, options, (await freeBytes(workplace)) - RESERVE_BYTES).run();
}

/** What reading a layer's headers has found. */
interface Inspected {
  diffId: string;
  entries: number;
  /** Bytes of the archive; what follows is none of it. */
  archiveBytes: number;
  changes: LayerChanges;
}

class Unpacking {
  readonly #tree: LayerTree;
  #unpackedBytes = 0;
  #reportedBytes = 0;

  constructor(
    readonly workplace: string,
    readonly layers: readonly LayerFile[],
    readonly options: UnpackOptions,
    readonly freeBytes: number,
  ) {
    const { limitBytes: contentBytes, limitEntries: entries = MAX_ENTRIES } = options;
    const limits = { contentBytes, entries, nameBytes: MAX_NAME_BYTES };
    this.#tree = new LayerTree(limits, refusalOf("the image"));
  }

  async run(): Promise<Unpacked> {
    const diffIds: string[] = [];
    for (const [index, layer] of this.layers.entries()) {
      this.#tree.beginLayer(refusalOf(layer.label));
      const { diffId, entries, archiveBytes, changes } = await this.#inspect(layer, index, index === 0);
      if (layer.diffId !== undefined && layer.diffId !== diffId) {
        throw invalid(
          layer.label,
          `its uncompressed digest is ${diffId}, the image's configuration says ${layer.diffId}`,
        );
      }
      diffIds.push(diffId);
      if (index > 0 && entries > 0) await this.#apply(layer, archiveBytes, changes);
    }
    if (!this.#tree.hasRoot) await setTimes([`${this.workplace}/tree`]);
    return { diffIds, entries: this.#tree.entries, contentBytes: this.#tree.contentBytes };
  }

  /** Looks at a whole layer, and unpacks it meanwhile if nothing of those below can stand in its way. */
  async #inspect(layer: LayerFile, index: number, unpacking: boolean): Promise<Inspected> {
    const hash = createHash("sha256");
    const reader = new TarReader((entry) => {
      this.#tree.add(entry);
      if (this.#tree.contentBytes > this.freeBytes) throw this.#diskFull(layer, this.#tree.contentBytes);
    }, layer.label);
    const entriesBefore = this.#tree.entries;
    let archiveBytes = 0;
    const inspect = (chunk: Uint8Array, atEnd: boolean) => {
      if (atEnd) reader.end();
      const length = reader.push(chunk);
      hash.update(chunk);
      archiveBytes += length;
      this.#report(layer, index, chunk.length);
      return chunk.subarray(0, length);
    };
    const source = await decompression(layer.path);
    const sink = unpacking ? { sink: this.#jailed(UNPACK) } : {};
    const result = await pipeTools({ source, ...sink, inspect, ...this.#run() });
    const entries = this.#tree.entries - entriesBefore;
    // An empty layer is one, but to tar nothing is no tarball.
    const isEmpty = entries === 0 && result.source.exitCode === 0 && result.refusal === undefined;
    if (!isEmpty) this.#throwFailure(result, layer);
    return { diffId: `sha256:${hash.digest("hex")}`, entries, archiveBytes, changes: this.#tree.endLayer() };
  }

  /** Carries out what a checked layer removes, then unpacks it. */
  async #apply(layer: LayerFile, archiveBytes: number, { removals, keptDirectories }: LayerChanges): Promise<void> {
    const kept = `${this.workplace}/kept.tar`;
    if (keptDirectories.length > 0) {
      const input = zeroTerminated(keptDirectories.map((path) => (path === "" ? "." : path)));
      await runTool(this.#jailed(PACK_DIRECTORIES), { ...this.#run(), input, outputPath: kept, endsWithUs: true });
    }
    if (removals.length > 0) {
      const input = zeroTerminated(removals.map((path) => `${JAIL_DIRECTORY}/${path}`));
      await runTool(this.#jailed(REMOVE), { ...this.#run(), input, endsWithUs: true });
    }
    let left = archiveBytes;
    const inspect = (chunk: Uint8Array) => {
      const passed = chunk.subarray(0, left);
      left -= passed.length;
      return passed;
    };
    const source = await decompression(layer.path);
    this.#throwFailure(await pipeTools({ source, sink: this.#jailed(UNPACK), inspect, ...this.#run() }), layer);
    if (keptDirectories.length === 0) return;
    const restore = { source: ["cat", kept], sink: this.#jailed(UNPACK), inspect: (chunk: Uint8Array) => chunk };
    this.#throwFailure(await pipeTools({ ...restore, ...this.#run() }), layer);
  }

  #jailed(command: readonly string[]): string[] {
    return jailed(`${this.workplace}/jail`, `${this.workplace}/tree`, command);
  }

  #run(): { deadlineMs: number; signal?: AbortSignal } {
    const { signal } = this.options;
    return { deadlineMs: DEADLINE_MS, ...(signal === undefined ? {} : { signal }) };
  }

  #report(layer: LayerFile, index: number, bytes: number): void {
    const { limitBytes, onProgress } = this.options;
    this.#unpackedBytes += bytes;
    if (this.#unpackedBytes > limitBytes + OVERHEAD_BYTES) {
      throw invalid(layer.label, `it unpacks to more than the limit of ${limitBytes} bytes with its headers`);
    }
    if (this.#unpackedBytes - this.#reportedBytes < PROGRESS_BYTES) return;
    this.#reportedBytes = this.#unpackedBytes;
    onProgress?.(index + 1, this.layers.length, this.#unpackedBytes);
  }

  #throwFailure(result: PipelineResult, layer: LayerFile): void {
    if (result.refusal !== undefined) throw result.refusal;
    const { source, sink } = result;
    if (sink.stderrTail.includes("No space left on device")) throw this.#diskFull(layer, undefined);
    const attribute = /^.*(Cannot set '|Cannot acl|setxattr).*$/m.exec(sink.stderrTail)?.[0];
    if (attribute !== undefined)
      throw invalid(layer.label, `an attribute cannot be kept: ${attribute}`, sink.stderrTail);
    if (sink.exitCode !== 0) {
      if (/unshare failed|must be superuser|Operation not permitted/.test(sink.stderrTail)) {
        throw new MayflyError("root_required", `Cannot unpack ${layer.label}: keeping all owners needs root`, {
          details: { stderrTail: sink.stderrTail },
        });
      }
      throw invalid(layer.label, `tar could not unpack it: ${lastLine(sink.stderrTail)}`, sink.stderrTail);
    }
    if (source.exitCode === 0) return;
    throw invalid(layer.label, `it cannot be read: ${lastLine(source.stderrTail)}`, source.stderrTail);
  }

  #diskFull(layer: LayerFile, needBytes: number | undefined): MayflyError {
    const need = needBytes === undefined ? "more" : `at least ${needBytes}`;
    const message = `Cannot unpack ${layer.label}: it needs ${need} bytes in ${this.workplace}, and ${Math.max(0, this.freeBytes)} can be used`;
    return new MayflyError("disk_full", message, { details: { path: this.workplace } });
  }
}

/** Names are bytes as latin-1 text. */
function zeroTerminated(paths: readonly string[]): Uint8Array {
  return Buffer.from(paths.map((path) => `${path}\0`).join(""), "latin1");
}

function invalid(label: string, why: string, stderrTail?: string): MayflyError {
  return new MayflyError("image_invalid", `Cannot unpack ${label}: ${why}`, {
    details: stderrTail === undefined ? {} : { stderrTail },
  });
}

function lastLine(text: string): string {
  const lines = text.split("\n").filter((line) => !line.includes("Exiting with failure status"));
  return lines.at(-1) ?? "no reason given";
}
