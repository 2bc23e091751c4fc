/** Files of a running VM. Paths are absolute and of the guest. */
import type { FileStat } from "../contract/api.ts";
import { type CallOptions, type Rest, segment } from "./rest.ts";
import type { TransportResponse } from "./transport.ts";

/** A file being read. */
export interface FileContent extends AsyncIterable<Uint8Array> {
  readonly stat: FileStat;
  bytes(): Promise<Uint8Array>;
  text(): Promise<string>;
}

/** How a file is written. */
export interface WriteOptions extends CallOptions {
  /** Permission bits; 0644 without. */
  mode?: number;
  uid?: number;
  gid?: number;
  /** Make missing directories. */
  parents?: boolean;
}

/** What can be done with files. */
export interface Files {
  read(vm: string, path: string, options?: CallOptions): Promise<FileContent>;
  /** Writes a file whole: it appears under its name when all bytes have come. */
  write(
    vm: string,
    path: string,
    content: string | Uint8Array | AsyncIterable<Uint8Array>,
    options?: WriteOptions,
  ): Promise<void>;
  /** What a path is; a symbolic link is not followed. */
  stat(vm: string, path: string, options?: CallOptions): Promise<FileStat>;
  list(vm: string, path: string, options?: CallOptions): Promise<FileStat[]>;
  mkdir(vm: string, path: string, options?: CallOptions & { mode?: number; parents?: boolean }): Promise<void>;
  remove(vm: string, path: string, options?: CallOptions & { recursive?: boolean }): Promise<void>;
}

/** The calls for files. */
export function files(rest: Rest): Files {
  const at = (vm: string, verb = "") => `/v1/vms/${segment(vm)}/files${verb}`;
  const octal = (mode: number | undefined) => mode?.toString(8).padStart(4, "0");
  return {
    read: async (vm, path, options) => contentOf(await rest.send("GET", at(vm), { ...options, query: { path } })),
    write(vm, path, content, { mode, uid, gid, parents, ...options } = {}) {
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      const query = { path, mode: octal(mode), uid, gid, parents };
      return rest.empty("PUT", at(vm), { ...options, query, content: bytes });
    },
    stat: (vm, path, options) => rest.json("GET", at(vm, "/stat"), { ...options, query: { path } }),
    list: (vm, path, options) => rest.json("GET", at(vm, "/list"), { ...options, query: { path } }),
    mkdir: (vm, path, { mode, parents, ...options } = {}) =>
      rest.empty("POST", at(vm, "/mkdir"), { ...options, query: { path, mode: octal(mode), parents } }),
    remove: (vm, path, { recursive, ...options } = {}) =>
      rest.empty("DELETE", at(vm), { ...options, query: { path, recursive } }),
  };
}

function contentOf(response: TransportResponse): FileContent {
  const encoded = Uint8Array.from(atob(response.header("mayfly-file-stat") ?? ""), (letter) => letter.charCodeAt(0));
  const bytes = async () => {
    const parts: Uint8Array[] = [];
    for await (const part of response.chunks()) parts.push(part);
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  };
  return {
    stat: JSON.parse(new TextDecoder().decode(encoded)) as FileStat,
    bytes,
    text: async () => new TextDecoder().decode(await bytes()),
    [Symbol.asyncIterator]: () => response.chunks()[Symbol.asyncIterator](),
  };
}
