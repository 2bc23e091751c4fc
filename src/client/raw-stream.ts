/** A body with two output streams: frames of u8 channel (1 stdout, 2 stderr), three zero bytes, u32 big-endian length, bytes. */
import { MayflyError } from "../contract/errors.ts";
import type { OutputName } from "./session.ts";

/** A piece of output. */
export interface OutputChunk {
  name: OutputName;
  bytes: Uint8Array;
}

const HEADER_BYTES = 8;
/** Longest frame taken; the daemon's are far shorter. */
const FRAME_LIMIT_BYTES = 64 << 20;

/** Takes the frames of a body apart. @throws MayflyError `connection_failed` if it ends within one. */
export async function* readRawStream(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<OutputChunk> {
  let rest: Uint8Array = new Uint8Array(0);
  for await (const chunk of chunks) {
    rest = rest.length === 0 ? chunk : joined(rest, chunk);
    while (rest.length >= HEADER_BYTES) {
      const length = new DataView(rest.buffer, rest.byteOffset).getUint32(4);
      if (length > FRAME_LIMIT_BYTES) throw broken(`a frame of ${length} bytes`);
      const end = HEADER_BYTES + length;
      if (rest.length < end) break;
      yield { name: rest[0] === 2 ? "stderr" : "stdout", bytes: rest.subarray(HEADER_BYTES, end) };
      rest = rest.subarray(end);
    }
  }
  if (rest.length > 0) throw broken(`${rest.length} bytes of an incomplete frame at the end`);
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const whole = new Uint8Array(a.length + b.length);
  whole.set(a);
  whole.set(b, a.length);
  return whole;
}

function broken(what: string): MayflyError {
  return new MayflyError("connection_failed", `Cannot read the output that the daemon sends: ${what}`);
}
