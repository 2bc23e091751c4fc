/** What goes over the wire of a WebSocket (RFC 6455): frames, and the answer to the handshake. */
import { MayflyError } from "../contract/errors.ts";

/** Longest message taken, in bytes; the daemon's are far shorter. */
export const MESSAGE_LIMIT_BYTES = 16 << 20;
/** Longest header and body of an answer to the handshake. */
export const HANDSHAKE_LIMIT_BYTES = 64 << 10;

/** Kinds of frames that are used here. */
export const OPCODES = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** A frame as received. */
export interface Frame {
  final: boolean;
  opcode: number;
  payload: Uint8Array;
  /** Where the next frame begins. */
  end: number;
}

/** The frame at the start of the bytes; `undefined` while it is not complete. @throws MayflyError `connection_failed`. */
export function parseFrame(bytes: Uint8Array): Frame | undefined {
  if (bytes.length < 2) return undefined;
  const [first = 0, second = 0] = bytes;
  if ((first & 0x70) !== 0) throw violation("a frame has reserved bits set");
  if ((second & 0x80) !== 0) throw violation("a frame of the daemon is masked");
  const extended = second === 126 ? 2 : second === 127 ? 8 : 0;
  const start = 2 + extended;
  if (bytes.length < start) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = extended === 0 ? second : extended === 2 ? view.getUint16(2) : Number(view.getBigUint64(2));
  if (length > MESSAGE_LIMIT_BYTES) throw tooLong(length);
  const end = start + length;
  if (bytes.length < end) return undefined;
  return { final: (first & 0x80) !== 0, opcode: first & 15, payload: bytes.subarray(start, end), end };
}

/** One final frame of the client; `first` is a byte put before the bytes. */
export function encodeFrame(opcode: number, first: number | undefined, bytes: Uint8Array, mask: boolean): Uint8Array {
  const length = bytes.length + (first === undefined ? 0 : 1);
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const start = 6 + extended;
  const frame = new Uint8Array(start + length);
  const view = new DataView(frame.buffer);
  frame[0] = 0x80 | opcode;
  frame[1] = 0x80 | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) view.setUint16(2, length);
  if (extended === 8) view.setBigUint64(2, BigInt(length));
  if (first !== undefined) frame[start] = first;
  frame.set(bytes, start + length - bytes.length);
  if (mask) applyMask(frame, start);
  return frame;
}

function applyMask(frame: Uint8Array, start: number): void {
  const key = crypto.getRandomValues(frame.subarray(start - 4, start));
  for (let i = start; i < frame.length; i++) frame[i] = (frame[i] ?? 0) ^ (key[(i - start) & 3] ?? 0);
}

/** The answer to a handshake. */
export interface HttpAnswer {
  status: number;
  headers: Map<string, string>;
  body: string;
  end: number;
}

/** The answer to the handshake, or `undefined` while it is not complete. A body goes to its content-length, or to the end. */
export function parseAnswer(bytes: Uint8Array, ended: boolean): HttpAnswer | undefined {
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, HANDSHAKE_LIMIT_BYTES));
  const headerEnd = text.indexOf("\r\n\r\n");
  if (headerEnd < 0) return undefined;
  const [statusLine = "", ...lines] = text.slice(0, headerEnd).split("\r\n");
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(statusLine)?.[1] ?? 0);
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    if (colon > 0) headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  const start = headerEnd + 4;
  if (status === 101) return { status, headers, body: "", end: start };
  const length = Number(headers.get("content-length") ?? Number.POSITIVE_INFINITY);
  if (bytes.length < start + length && !ended) return undefined;
  return { status, headers, body: new TextDecoder().decode(bytes.subarray(start, start + length)), end: bytes.length };
}

/** All parts in one. */
export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The error for a peer that breaks the protocol. */
export function violation(what: string): MayflyError {
  return new MayflyError("connection_failed", `The daemon broke the WebSocket protocol: ${what}`);
}

/** The error for a message beyond {@link MESSAGE_LIMIT_BYTES}. */
export function tooLong(length: number): MayflyError {
  return violation(`a message of ${length} bytes, at most ${MESSAGE_LIMIT_BYTES} are taken`);
}
