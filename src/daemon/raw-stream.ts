/**
 * Two output streams in one body, framed as docker's raw stream: u8 channel (1 stdout, 2 stderr), three zero bytes, u32
 * big-endian length, then the bytes.
 */
import type { LogChunk } from "../engine/interface.ts";

/** Media type of such a body. */
export const RAW_STREAM = "application/vnd.mayfly.raw-stream";
const HEADER_BYTES = 8;

/** Frames chunks as they come. */
export async function* rawFrames(chunks: AsyncIterable<LogChunk>): AsyncGenerator<Uint8Array> {
  for await (const { channel, chunk } of chunks) {
    if (chunk.length === 0) continue;
    const frame = new Uint8Array(HEADER_BYTES + chunk.length);
    frame[0] = channel;
    new DataView(frame.buffer).setUint32(4, chunk.length);
    frame.set(chunk, HEADER_BYTES);
    yield frame;
  }
}
