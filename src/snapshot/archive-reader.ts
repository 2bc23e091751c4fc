/** Reading an archive of a snapshot member by member. What is in it is believed only as far as it fits what is expected next. */
import { MayflyError } from "../contract/errors.ts";
import type { BinaryFile } from "../sys/binary-file.ts";
import { readSparse } from "../sys/sparse-stream.ts";
import { END_BYTES, MEMBER_HEADER_BYTES, memberPadding, readMemberHeader } from "../sys/tar-members.ts";
import type { ArchiveOptions } from "./archive.ts";

/** Largest member that is read into memory: a manifest, a device state. */
const MAX_SMALL_BYTES = 1 << 20;

/** An archive that is being read. */
export class ArchiveReader {
  #at = 0;
  #next: { name: string; sizeBytes: number } | "end" | undefined;

  constructor(
    private readonly file: BinaryFile,
    private readonly sizeBytes: number,
    private readonly options: ArchiveOptions,
  ) {}

  /** Name of the member that comes next, `end` after the last. @throws `snapshot_corrupt`. */
  async nextName(): Promise<string> {
    const next = await this.#header();
    return next === "end" ? "end" : next.name;
  }

  /** A small member. @throws `snapshot_corrupt` if another one comes. */
  async read(name: string): Promise<Uint8Array> {
    const sizeBytes = await this.#expect(name);
    if (sizeBytes > MAX_SMALL_BYTES) {
      throw this.corrupt(`${name} has ${sizeBytes} bytes, at most ${MAX_SMALL_BYTES} are read`);
    }
    const bytes = await this.#take(sizeBytes);
    await this.#finish(sizeBytes);
    return bytes;
  }

  /** Unpacks a large member into an existing file, whose size is known. @throws `snapshot_corrupt`, `disk_full`, `cancelled`. */
  async unpack(name: string, into: { path: string; sizeBytes: number }): Promise<void> {
    const sizeBytes = await this.#expect(name);
    const { signal, onBytes } = this.options;
    const next = async (length: number) => {
      const bytes = await this.#take(length);
      onBytes?.(this.#at);
      return bytes;
    };
    await readSparse(next, sizeBytes, into, (why) => this.corrupt(`${name}: ${why}`), signal);
    await this.#finish(sizeBytes);
  }

  /** Passes a member over. @throws `snapshot_corrupt`. */
  async skip(name: string): Promise<void> {
    const sizeBytes = await this.#expect(name);
    this.#at += sizeBytes;
    await this.#finish(sizeBytes);
  }

  /** @throws `snapshot_corrupt` if there is more. */
  async end(): Promise<void> {
    if ((await this.#header()) !== "end") throw this.corrupt("there is more in it than belongs there");
    const rest = await this.#take(END_BYTES - MEMBER_HEADER_BYTES);
    if (rest.some((byte) => byte !== 0)) throw this.corrupt("it does not end as it should");
    if (this.#at !== this.sizeBytes) throw this.corrupt(`${this.sizeBytes - this.#at} bytes come after its end`);
  }

  /** The error for this archive. */
  corrupt(why: string): MayflyError {
    const { path } = this.file;
    return new MayflyError("snapshot_corrupt", `Cannot import ${path}: ${why}`, { details: { path, problems: [why] } });
  }

  async #header(): Promise<{ name: string; sizeBytes: number } | "end"> {
    if (this.#next !== undefined) return this.#next;
    const header = readMemberHeader(await this.#take(MEMBER_HEADER_BYTES));
    if (header === undefined) throw this.corrupt(`there is no member at ${this.#at - MEMBER_HEADER_BYTES} bytes`);
    this.#next = header;
    return header;
  }

  async #expect(name: string): Promise<number> {
    const next = await this.#header();
    const found = next === "end" ? "its end" : next.name;
    if (next === "end" || next.name !== name) throw this.corrupt(`${found} comes where ${name} has to be`);
    if (next.sizeBytes > this.sizeBytes - this.#at) {
      throw this.corrupt(`${name} has ${next.sizeBytes} bytes, and there are ${this.sizeBytes - this.#at}`);
    }
    this.#next = undefined;
    return next.sizeBytes;
  }

  async #finish(sizeBytes: number): Promise<void> {
    await this.#take(memberPadding(sizeBytes));
  }

  async #take(length: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(length);
    const read = await this.file.read(bytes, this.#at);
    if (read < length) throw this.corrupt(`it ends after ${this.#at + read} bytes`);
    this.#at += length;
    return bytes;
  }
}
