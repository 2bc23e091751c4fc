/** Import of a root file system: a tarball becomes an erofs image with every owner, mode, xattr, hard link and device kept. */

import { createHash, randomBytes } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { freeBytes, identityOf, makeDirectory, readStart, writeText } from "../sys/paths.ts";
import { type PipelineResult, pipeTools } from "../sys/pipeline.ts";
import { publishTree, sha256File } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import { JAIL_DIRECTORY, jailed } from "./jail.ts";
import { detectRootfs } from "./rootfs.ts";
import {
  type ImageManifest,
  imageDirectory,
  imagesDirectory,
  openImage,
  openWorkplace,
  type StoredImage,
} from "./store.ts";
import { TarReader } from "./tar-reader.ts";
import { TarRules } from "./tar-rules.ts";

/** What {@link importRootfs} takes. */
export interface ImportOptions {
  stateDir: string;
  /** Tarball, plain or compressed with gzip, xz or zstd. */
  tarballPath: string;
  /** Most bytes that its files may have in sum; 64 GiB unless told. */
  limitBytes?: number;
  signal?: AbortSignal;
  /** Called as it goes on, with the bytes unpacked so far. */
  onProgress?: (stage: "unpack" | "pack", unpackedBytes: number) => void;
}

const DEFAULT_LIMIT_BYTES = 64 * 2 ** 30;
const MAX_ENTRIES = 2_000_000;
const DEADLINE_MS = 3_600_000;
/** Left free on the disk: an import must not starve what runs. */
const RESERVE_BYTES = 64 * 2 ** 20;
/** Headers and padding that a tarball may have besides its files' bytes. */
const OVERHEAD_BYTES = 2 ** 30;
const PROGRESS_BYTES = 16 * 2 ** 20;

/** Programs that decompress, by the first bytes of the file. */
const COMPRESSIONS: readonly { magic: readonly number[]; command: readonly string[] }[] = [
  { magic: [0x1f, 0x8b], command: ["gzip", "-dc"] },
  { magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], command: ["xz", "-dc"] },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], command: ["zstd", "-dc", "-q"] },
];

const UNPACK = [
  "/usr/bin/tar",
  "--extract",
  `--directory=${JAIL_DIRECTORY}`,
  "--numeric-owner",
  "--same-owner",
  "--preserve-permissions",
  "--xattrs",
  "--xattrs-include=*",
  "--acls",
];

/**
 * Imports a tarball into the store. An image that is there already stays as it is.
 *
 * Every header is checked before the unpacker sees it, and the unpacker can write nowhere but to a directory of its own.
 *
 * @returns the image; its manifest has the digest.
 * @throws MayflyError `file_not_found`; `image_invalid`, naming the entry; `disk_full`; `root_required`; `tool_missing`; `cancelled`.
 * Nothing is left behind in any case.
 */
export async function importRootfs(options: ImportOptions): Promise<StoredImage> {
  const { stateDir, tarballPath } = options;
  const command = await decompressor(tarballPath);
  await makeDirectory(imagesDirectory(stateDir));
  await using workplace = await openWorkplace(stateDir, randomBytes(6).toString("hex"));
  const tree = `${workplace.path}/tree`;
  await makeDirectory(tree);
  await makeDirectory(`${workplace.path}/jail`);
  const content = await unpack(options, command, workplace.path);
  const directory = imageDirectory(stateDir, content.digest);
  if ((await identityOf(directory)) === undefined) {
    options.onProgress?.("pack", content.contentBytes);
    const finished = `${workplace.path}/image`;
    const image = `${finished}/rootfs.erofs`;
    await makeDirectory(finished);
    await makeErofs(tree, image, options.signal);
    const { sizeBytes } = await detectRootfs(image);
    const manifest: ImageManifest = {
      magic: "mayfly-image",
      version: 1,
      ...content,
      fstype: "erofs",
      sizeBytes,
      sha256: await sha256File(image),
      createdAt: new Date().toISOString(),
    };
    await writeText(`${finished}/manifest.json`, `${JSON.stringify(manifest, null, 2)}\n`);
    await publishTree(finished, directory);
  }
  return openImage(stateDir, content.digest);
}

interface Content {
  digest: string;
  entries: number;
  contentBytes: number;
}

async function decompressor(path: string): Promise<string[]> {
  const identity = await identityOf(path);
  if (identity === undefined) {
    throw new MayflyError("file_not_found", `Cannot import ${path}: there is no such file`, { details: { path } });
  }
  if (!identity.isFile)
    throw invalid(path, `it is ${identity.isDirectory ? "a directory" : "no regular file"}, not a tarball`);
  const start = await readStart(path, 8);
  const known = COMPRESSIONS.find(({ magic }) => magic.every((byte, at) => start[at] === byte));
  return known === undefined ? ["cat", path] : [...known.command, path];
}

/** Unpacks into `workplace/tree`, looking at every header and hashing on the way. */
async function unpack(options: ImportOptions, command: readonly string[], workplace: string): Promise<Content> {
  const limitBytes = options.limitBytes ?? DEFAULT_LIMIT_BYTES;
  const free = (await freeBytes(workplace)) - RESERVE_BYTES;
  const rules = new TarRules({ contentBytes: limitBytes, entries: MAX_ENTRIES });
  const reader = new TarReader((entry) => {
    rules.check(entry);
    if (rules.contentBytes > free) throw diskFull(options, rules.contentBytes, free);
  });
  const hash = createHash("sha256");
  let unpackedBytes = 0;
  let reportedBytes = 0;
  const inspect = (chunk: Uint8Array, atEnd: boolean) => {
    if (atEnd) reader.end();
    const length = reader.push(chunk);
    hash.update(chunk);
    unpackedBytes += chunk.length;
    if (unpackedBytes > limitBytes + OVERHEAD_BYTES) throw beyond(options, limitBytes);
    if (unpackedBytes - reportedBytes >= PROGRESS_BYTES) {
      reportedBytes = unpackedBytes;
      options.onProgress?.("unpack", unpackedBytes);
    }
    return chunk.subarray(0, length);
  };
  const result = await pipeTools({
    source: command,
    sink: jailed(`${workplace}/jail`, `${workplace}/tree`, UNPACK),
    inspect,
    deadlineMs: DEADLINE_MS,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  if (rules.entries === 0 && result.refusal === undefined && result.source.exitCode === 0) {
    throw invalid(options.tarballPath, "it holds no files");
  }
  throwFailure(result, options, free);
  return { digest: `sha256:${hash.digest("hex")}`, entries: rules.entries, contentBytes: rules.contentBytes };
}

function throwFailure(result: PipelineResult, options: ImportOptions, freeNow: number): void {
  if (result.refusal !== undefined) throw result.refusal;
  const { source, sink } = result;
  if (sink.stderrTail.includes("No space left on device")) throw diskFull(options, undefined, freeNow);
  if (sink.exitCode !== 0 || /Cannot set '|Cannot acl|setxattr/.test(sink.stderrTail)) {
    if (/unshare failed|must be superuser|Operation not permitted/.test(sink.stderrTail)) {
      throw new MayflyError(
        "root_required",
        `Cannot import ${options.tarballPath}: unpacking with all owners needs root`,
        {
          details: { stderrTail: sink.stderrTail },
        },
      );
    }
    throw invalid(options.tarballPath, `tar could not unpack it: ${lastLine(sink.stderrTail)}`, sink.stderrTail);
  }
  if (source.exitCode !== 0) {
    throw invalid(options.tarballPath, `it cannot be read: ${lastLine(source.stderrTail)}`, source.stderrTail);
  }
}

/**
 * mkfs.erofs(1): LZ4, which every kernel with erofs reads (lz4hc saves a tenth, and takes 20 times as long on data that does not compress);
 * times as they are, not the time of building.
 */
async function makeErofs(tree: string, image: string, signal: AbortSignal | undefined): Promise<void> {
  const command = ["mkfs.erofs", "--quiet", "-zlz4", "--preserve-mtime", image, tree];
  try {
    await runTool(command, { deadlineMs: DEADLINE_MS, endsWithUs: true, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    const tail = error instanceof MayflyError ? (error.details.stderrTail ?? "") : "";
    if (!/No space left|write error|-28\b/i.test(tail)) throw error;
    throw new MayflyError("disk_full", `Cannot write ${image}: no space left on its file system`, {
      details: { path: image, stderrTail: tail },
      cause: error,
    });
  }
}

function beyond(options: ImportOptions, limitBytes: number): MayflyError {
  return invalid(options.tarballPath, `it unpacks to more than the limit of ${limitBytes} bytes with its headers`);
}

function diskFull(options: ImportOptions, needBytes: number | undefined, haveBytes: number): MayflyError {
  const need = needBytes === undefined ? "more" : `at least ${needBytes}`;
  const place = imagesDirectory(options.stateDir);
  return new MayflyError(
    "disk_full",
    `Cannot import ${options.tarballPath}: it needs ${need} bytes in ${place}, and ${Math.max(0, haveBytes)} can be used`,
    { details: { path: place } },
  );
}

function invalid(path: string, why: string, stderrTail?: string): MayflyError {
  return new MayflyError("image_invalid", `Cannot import ${path}: ${why}`, {
    details: { path, ...(stderrTail === undefined ? {} : { stderrTail }) },
  });
}

function lastLine(text: string): string {
  const lines = text.split("\n").filter((line) => !line.includes("Exiting with failure status"));
  return lines.at(-1) ?? "no reason given";
}
