/** File contents in and out of the guest, as objects with a stream. */
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import type { AgentConnection } from "./connection.ts";
import { fileFailure } from "./failures.ts";
import { AgentObject } from "./object.ts";
import { releaseObject } from "./process.ts";
import { encodeFileRead, encodeFileWrite, type WriteSpec } from "./requests.ts";
import { decodeOpened, type ExitReport } from "./results.ts";
import { Channel, FrameType, type PayloadReader, streamOf, violation } from "./wire.ts";

/** Part of a file, in bytes; to the end without a length. */
export interface FileRange {
  offset?: number;
  length?: number;
}

/** Takes file contents; see `OutputConsumer` for how long a chunk is valid and what returning means. */
export type FileConsumer = (chunk: Uint8Array, offset: number) => void | Promise<void>;

/** How long a release that nobody waits for may take, in milliseconds. */
const RELEASE_MS = 10_000;
const nothing = () => undefined;

/** What reading and writing have in common: opening, the end with its errno, and the release after it. */
class Transfer<T> {
  readonly opened: Promise<T>;
  readonly #connection: AgentConnection;
  readonly #object: AgentObject;
  readonly #path: string;
  readonly #what: "read" | "write";
  readonly #deadline: Deadline;

  constructor(
    connection: AgentConnection,
    object: AgentObject,
    request: { what: "read" | "write"; path: string; payload: Uint8Array; parse(reader: PayloadReader): T },
    deadline: Deadline,
  ) {
    const { what, path, payload, parse } = request;
    this.#connection = connection;
    this.#object = object;
    this.#path = path;
    this.#what = what;
    this.#deadline = deadline;
    this.opened = connection.request(
      {
        type: what === "read" ? FrameType.fileRead : FrameType.fileWrite,
        stream: streamOf(object.id, Channel.control),
        payload,
        what: `the opening of ${path}`,
        parse,
        failure: (errno) => fileFailure(what, path, errno),
      },
      deadline,
    );
    this.opened.catch((error: unknown) => this.#giveUp(error));
  }

  /** Waits for the end, at most until the deadline, and has the agent forget the transfer. */
  async finish(): Promise<ExitReport> {
    try {
      await this.opened;
      const report = await this.#deadline.race(this.#object.ended, `the end of the transfer of ${this.#path}`);
      if (report.errno !== 0) throw fileFailure(this.#what, this.#path, report.errno);
      return report;
    } finally {
      if (this.#connection.knows(this.#object)) this.release().catch(nothing);
    }
  }

  release(): Promise<void> {
    return releaseObject(this.#connection, this.#object, Deadline.after(RELEASE_MS));
  }

  #giveUp(error: unknown): void {
    this.#object.lost(error);
    const late = error instanceof MayflyError && (error.code === "deadline_exceeded" || error.code === "cancelled");
    if (late) this.release().catch(nothing);
    else this.#connection.remove(this.#object.id);
  }
}

/** A file on its way out of the guest. */
export interface FileRead {
  /** Size and mode when it was opened. Rejects with `file_not_found` or `file_operation_failed`. */
  opened: Promise<{ sizeBytes: number; mode: number }>;
  /** Resolves with the number of bytes read once the consumer has kept them all. */
  done: Promise<number>;
}

/** Sends FILE_READ now and gives the contents to `consumer`; past the deadline the transfer ends. */
export function startFileRead(
  connection: AgentConnection,
  path: string,
  range: FileRange,
  consumer: FileConsumer,
  deadline: Deadline,
): FileRead {
  const payload = encodeFileRead(path, range.offset ?? 0, range.length);
  const object = new AgentObject(connection, (channel, chunk, offset) => {
    if (channel !== Channel.output) throw violation("a file's contents came on channel 3");
    return consumer(chunk, offset);
  });
  const transfer = new Transfer(connection, object, { what: "read", path, payload, parse: decodeOpened }, deadline);
  const done = transfer.finish().then((report) => report.outputEnd);
  done.catch(nothing);
  return { opened: transfer.opened, done };
}

/** A file on its way into the guest. Unless it appends, the file changes only when {@link end} has resolved. */
export class FileWriter {
  /** Resolves when the agent takes contents. Rejects with `file_not_found` or `file_operation_failed`. */
  readonly opened: Promise<void>;
  readonly #object: AgentObject;
  readonly #transfer: Transfer<void>;
  readonly #done: Promise<ExitReport>;

  /** Sends FILE_WRITE now. @throws `invalid_argument` for what cannot be sent. */
  constructor(connection: AgentConnection, path: string, spec: WriteSpec, deadline: Deadline) {
    const payload = encodeFileWrite(path, spec);
    this.#object = new AgentObject(connection, () => {
      throw violation("output came from a file that is being written");
    });
    const request = { what: "write", path, payload, parse: nothing } as const;
    this.#transfer = new Transfer<void>(connection, this.#object, request, deadline);
    this.opened = this.#transfer.opened;
    this.#done = this.#transfer.finish();
    this.#done.catch(nothing);
  }

  /** Sends contents; resolves when there is room. False: the agent has ended the transfer, {@link end} says why. */
  write(bytes: Uint8Array): Promise<boolean> {
    return this.#object.input.write(bytes);
  }

  /** Ends the contents and waits until the file is in place. */
  async end(): Promise<void> {
    this.#object.input.end();
    await this.#done;
  }

  /** Gives up: unless appending, nothing is left of what was written. */
  async abort(): Promise<void> {
    await this.#transfer.release();
  }
}
