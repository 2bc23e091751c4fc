/** QMP framing: one JSON object per line (QEMU docs/interop/qmp-spec). Bounded; pure. */
import { MayflyError } from "../contract/errors.ts";

/** Longest message accepted, in bytes. query-qmp-schema answers about 300 KB; nothing of ours comes near. */
export const MAX_MESSAGE_BYTES = 1 << 20;

/** A message from QEMU, by its one distinguishing member. */
export type QmpMessage =
  | { type: "greeting"; version: string }
  | { type: "return"; id: number | undefined; value: unknown }
  | {
      type: "error";
      id: number | undefined;
      class: string;
      description: string;
    }
  | {
      type: "event";
      name: string;
      data: Record<string, unknown>;
      seconds: number;
    };

function violation(why: string, text: string): MayflyError {
  return new MayflyError("qmp_protocol_violation", `QEMU sent a QMP message that ${why}: ${text.slice(0, 200)}`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Parses one line. @throws `qmp_protocol_violation` for anything that is not a QMP message. */
export function parseMessage(line: string): QmpMessage {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    throw violation("is not JSON", line);
  }
  if (!isRecord(json)) throw violation("is not an object", line);
  const id = typeof json["id"] === "number" ? json["id"] : undefined;
  if (isRecord(json["QMP"])) return { type: "greeting", version: greetingVersion(json["QMP"]) };
  if ("return" in json) return { type: "return", id, value: json["return"] };
  const error = json["error"];
  if (isRecord(error)) {
    return {
      type: "error",
      id,
      class: String(error["class"]),
      description: String(error["desc"]),
    };
  }
  if (typeof json["event"] === "string") {
    const data = isRecord(json["data"]) ? json["data"] : {};
    const stamp = isRecord(json["timestamp"]) ? Number(json["timestamp"]["seconds"]) : 0;
    return { type: "event", name: json["event"], data, seconds: stamp };
  }
  throw violation("is neither greeting, return, error nor event", line);
}

function greetingVersion(qmp: Record<string, unknown>): string {
  const version = isRecord(qmp["version"]) ? qmp["version"]["qemu"] : undefined;
  if (!isRecord(version)) return "unknown";
  return `${version["major"]}.${version["minor"]}.${version["micro"]}`;
}

/** Splits a byte stream into lines, independent of how it was cut. */
export class LineSplitter {
  #parts: Uint8Array[] = [];
  #bytes = 0;

  /** @returns the complete lines, without their ends, that `chunk` finished. @throws when a line is too long. */
  push(chunk: Uint8Array): string[] {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(10, start); end >= 0; end = chunk.indexOf(10, start)) {
      this.#keep(chunk.subarray(start, end));
      const line = Buffer.concat(this.#parts, this.#bytes).toString("utf8").trimEnd();
      this.#parts = [];
      this.#bytes = 0;
      if (line.length > 0) lines.push(line);
      start = end + 1;
    }
    // A copy: the slice of a Buffer is a view.
    if (start < chunk.length) this.#keep(new Uint8Array(chunk.subarray(start)));
    return lines;
  }

  #keep(part: Uint8Array): void {
    this.#bytes += part.length;
    if (this.#bytes > MAX_MESSAGE_BYTES) {
      throw violation(`is longer than ${MAX_MESSAGE_BYTES} bytes`, Buffer.from(part).toString("latin1"));
    }
    this.#parts.push(part);
  }
}
