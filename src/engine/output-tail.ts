/** The end of a process' output, for errors, and what of it has not been looked at yet. Bounded, however much is printed. */
import { StringDecoder } from "node:string_decoder";

/** Characters kept for errors. */
const TAIL_CHARS = 4096;
/** Bytes of each channel that wait to be looked at; the oldest go. */
const UNSEEN_BYTES = 256 * 1024;

/** One channel's bytes that nobody has looked at. */
interface Unseen {
  bytes: Buffer;
  /** Since the last look. */
  grown: boolean;
}

/** Keeps the end of what a process prints on both channels. */
export class OutputTail {
  readonly #decoders = { 2: new StringDecoder("utf8"), 3: new StringDecoder("utf8") };
  readonly #unseen: Record<2 | 3, Unseen> = {
    2: { bytes: Buffer.alloc(0), grown: false },
    3: { bytes: Buffer.alloc(0), grown: false },
  };
  #tail = "";

  /** @param watched whether {@link look} will be called. */
  constructor(private readonly watched = false) {}

  /** Takes output; to be given to the agent as the consumer. */
  readonly take = (channel: 2 | 3, chunk: Uint8Array): void => {
    this.#tail = (this.#tail + this.#decoders[channel].write(chunk)).slice(-TAIL_CHARS);
    if (!this.watched) return;
    const unseen = this.#unseen[channel];
    unseen.bytes = Buffer.from(Buffer.concat([unseen.bytes, chunk]).subarray(-UNSEEN_BYTES));
    unseen.grown = true;
  };

  /** The last characters of both channels as they came. */
  get text(): string {
    return this.#tail;
  }

  /** What came since the last look, in whole lines but for the last one of a channel, which will be seen again when it has grown. */
  look(): Uint8Array {
    const parts = [this.#unseen[2], this.#unseen[3]].map((unseen) => {
      if (!unseen.grown) return Buffer.alloc(0);
      const { bytes } = unseen;
      unseen.grown = false;
      unseen.bytes = bytes.subarray(bytes.lastIndexOf(10) + 1);
      return bytes.at(-1) === 10 ? bytes : Buffer.concat([bytes, Buffer.from("\n")]);
    });
    return Buffer.concat(parts);
  }
}

/** The last line that says something, for the end of a message; `(nothing)` if there is none. */
export function lastLine(text: string): string {
  const line = text.trimEnd().split("\n").at(-1)?.trim() ?? "";
  return line === "" ? "(nothing)" : line.slice(-500);
}
