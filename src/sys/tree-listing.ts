/** What a directory tree looked like at a moment: a hash over the metadata of everything in it, without reading a file. */
import { createHash, type Hash } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { findTool, missingTool, toolEnvironment } from "./tool.ts";

/** A tree at a moment. */
export interface TreeListing {
  /**
   * SHA-256, hexadecimal, over each entry's path, device, inode, type, mode, owner, links, size, times of change (nanoseconds) of contents and of
   * metadata, and target. The last time cannot be set: what was written to has another.
   */
  sha256: string;
  entries: number;
  /** Sum of the sizes of regular files. */
  contentBytes: number;
  /** The latest change of anything in it, milliseconds since 1970. */
  newestMs: number;
}

/** What a tree may have. */
export interface TreeLimits {
  entries: number;
  contentBytes: number;
  deadlineMs: number;
  signal?: AbortSignal;
}

/** find(1) -printf: fields of an entry, its path and its target, each ended by a NUL. */
const FORMAT = "%D %i %y %m %U %G %n %s %T@ %C@\\0%P\\0%l\\0";
const FIELDS = 3;

/**
 * Lists a tree, symbolic links not followed.
 * @throws MayflyError `invalid_argument`, naming the place, for a tree in which another file system is mounted or that is beyond the limits;
 * `file_operation_failed` if something in it cannot be read; `cancelled`, `deadline_exceeded`, `tool_missing`.
 */
export async function listTree(directory: string, limits: TreeLimits): Promise<TreeListing> {
  const { signal, deadlineMs } = limits;
  const find = findTool("find");
  if (find === undefined) throw missingTool("find");
  if (signal?.aborted) throw interrupted(directory);
  const child = Bun.spawn([find, directory, "-xdev", "-printf", FORMAT], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: toolEnvironment(),
    timeout: deadlineMs,
    killSignal: "SIGKILL",
  });
  const kill = () => child.kill("SIGKILL");
  signal?.addEventListener("abort", kill, { once: true });
  const messages = new Response(child.stderr).text();
  const reader = new ListingReader(directory, limits);
  try {
    for await (const chunk of child.stdout) reader.push(chunk);
    await child.exited;
  } finally {
    kill();
    signal?.removeEventListener("abort", kill);
  }
  if (signal?.aborted) throw interrupted(directory);
  if (child.signalCode !== null) {
    throw new MayflyError("deadline_exceeded", `Looking through ${directory} took more than ${deadlineMs} ms`);
  }
  if (child.exitCode !== 0) {
    const why = (await messages).trimEnd().split("\n")[0] ?? "";
    throw new MayflyError("file_operation_failed", `Cannot read all of ${directory}: ${why}`, {
      details: { path: directory, stderrTail: why },
    });
  }
  return reader.end();
}

function interrupted(directory: string): MayflyError {
  return new MayflyError("cancelled", `Looking through ${directory} was interrupted`);
}

/** Takes find's output as it comes, in whatever pieces. */
class ListingReader {
  readonly #hash: Hash = createHash("sha256");
  #rest: Buffer = Buffer.alloc(0);
  #field = 0;
  #device: string | undefined;
  #isForeign = false;
  #entries = 0;
  #contentBytes = 0;
  #newestMs = 0;

  constructor(
    private readonly directory: string,
    private readonly limits: TreeLimits,
  ) {}

  push(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    let from = 0;
    const bytes = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk]);
    for (let at = bytes.indexOf(0); at >= 0; at = bytes.indexOf(0, from)) {
      this.#take(bytes.subarray(from, at));
      from = at + 1;
    }
    this.#rest = bytes.subarray(from);
  }

  end(): TreeListing {
    return {
      sha256: this.#hash.digest("hex"),
      entries: this.#entries,
      contentBytes: this.#contentBytes,
      newestMs: this.#newestMs,
    };
  }

  #take(field: Buffer): void {
    if (this.#field === 0) this.#entry(field.toString("latin1"));
    else if (this.#field === 1 && this.#isForeign)
      throw this.#refuse(`${this.directory}/${field} is another file system`);
    this.#field = (this.#field + 1) % FIELDS;
  }

  #entry(text: string): void {
    const [device = "", , type = "", , , , , size = "0", modified = "0", changed = "0"] = text.split(" ");
    this.#device ??= device;
    // Some file systems give files, but no directory, another device than their own.
    this.#isForeign = type === "d" && device !== this.#device;
    this.#entries += 1;
    if (type === "f") this.#contentBytes += Number(size);
    this.#newestMs = Math.max(this.#newestMs, Number(modified) * 1000, Number(changed) * 1000);
    const { entries, contentBytes } = this.limits;
    if (this.#entries > entries) throw this.#refuse(`it has more than ${entries} files`);
    if (this.#contentBytes > contentBytes) throw this.#refuse(`its files have more than ${contentBytes} bytes`);
  }

  #refuse(why: string): MayflyError {
    return new MayflyError("invalid_argument", `Cannot take a snapshot of ${this.directory}: ${why}`, {
      details: { path: this.directory },
    });
  }
}
