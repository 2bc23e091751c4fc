/** Files that are read and written in pieces at offsets, off the event loop. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { diskFull } from "./publish.ts";

/** O_TMPFILE of x86-64. */
const TMPFILE = 0o20200000;

/** An open file. Disposing it closes it. */
export class BinaryFile implements AsyncDisposable {
  private constructor(
    readonly path: string,
    private readonly file: FileHandle,
  ) {}

  /** Opens a file to read it. @throws what the file system says. */
  static async open(path: string): Promise<BinaryFile> {
    return new BinaryFile(path, await open(path, "r"));
  }

  /** Opens a file to change it. @throws what the file system says. */
  static async change(path: string): Promise<BinaryFile> {
    return new BinaryFile(path, await open(path, "r+"));
  }

  /** Makes a new file, root's alone. @throws what the file system says, EEXIST too. */
  static async create(path: string, mode = 0o600): Promise<BinaryFile> {
    return new BinaryFile(path, await open(path, "wx+", mode));
  }

  /** Makes a file without a name in a directory, which is gone when it is closed. @throws what the file system says, EOPNOTSUPP among it. */
  static async unnamed(directory: string, mode = 0o600): Promise<BinaryFile> {
    return new BinaryFile(directory, await open(directory, TMPFILE | constants.O_RDWR, mode));
  }

  get fd(): number {
    return this.file.fd;
  }

  async sizeBytes(): Promise<number> {
    return (await this.file.stat()).size;
  }

  /** Fills `into` from an offset on. @returns how much of it was filled: less only at the file's end. */
  async read(into: Uint8Array, offset: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await this.file.read(into, done, into.length - done, offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  /** Writes all of `bytes` at an offset. @throws `disk_full`, what else the file system says. */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    try {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.file.write(bytes, done, bytes.length - done, offset + done);
        done += bytesWritten;
      }
    } catch (error) {
      throw diskFull(error, this.path);
    }
  }

  /** Sets its length; a longer one is a hole at the end. */
  async resize(sizeBytes: number): Promise<void> {
    await this.file.truncate(sizeBytes);
  }

  /** Brings it to the disk. @throws `disk_full`. */
  async sync(): Promise<void> {
    try {
      await this.file.sync();
    } catch (error) {
      throw diskFull(error, this.path);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.file.close();
  }
}
