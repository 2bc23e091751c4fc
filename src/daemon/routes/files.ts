/** `/v1/vms/{id}/files`: files of a running VM, streamed. Paths are absolute and of the guest. */
import { z } from "zod";
import { FileStat } from "../../contract/api.ts";
import { bodyChunks } from "../body.ts";
import { REQUEST_LIMIT_MS, TRANSFER_LIMIT_MS } from "../limits.ts";
import { flag, guestPath, mode, number } from "../query.ts";
import { contentRoute, emptyRoute, jsonRoute, type Route } from "../route.ts";
import { streamed } from "../streamed-body.ts";

const OCTET_STREAM = "application/octet-stream";
const ID_MAX = 2 ** 32 - 2;
const tag = "files";
const onlyPath = z.strictObject({ path: guestPath });

const read = contentRoute({
  method: "GET",
  path: "/v1/vms/{id}/files",
  tag,
  summary: "Read a file. The header `mayfly-file-stat` has its FileStat as base64 of JSON.",
  query: onlyPath,
  answer: { status: 200, description: "The bytes.", content: OCTET_STREAM },
  async handle({ engine, params, query, deadline }) {
    const { stat, content } = await engine.readFile(params.id, query.path, deadline(TRANSFER_LIMIT_MS));
    return streamed(content, `file ${query.path} of ${params.id}`, {
      "content-type": OCTET_STREAM,
      "mayfly-file-stat": Buffer.from(JSON.stringify(stat)).toString("base64"),
    });
  },
});

const write = emptyRoute({
  method: "PUT",
  path: "/v1/vms/{id}/files",
  tag,
  summary: "Write a file whole: it appears under its name when all bytes have come.",
  query: z.strictObject({
    path: guestPath,
    mode: mode("0644"),
    uid: number(0, ID_MAX).default(0),
    gid: number(0, ID_MAX).default(0),
    parents: flag.describe("Make missing directories."),
  }),
  body: z.undefined(),
  bodyKind: "raw",
  description: "It is written.",
  handle({ engine, params, query, request, deadline }) {
    const { path, ...options } = query;
    return engine.writeFile(params.id, path, bodyChunks(request), {
      ...options,
      deadline: deadline(TRANSFER_LIMIT_MS),
    });
  },
});

const remove = emptyRoute({
  method: "DELETE",
  path: "/v1/vms/{id}/files",
  tag,
  summary: "Remove a file or directory.",
  query: z.strictObject({ path: guestPath, recursive: flag.describe("A directory with all that is in it.") }),
  description: "It is gone.",
  handle: ({ engine, params, query, unattended }) =>
    engine.removeFile(params.id, query.path, { recursive: query.recursive, deadline: unattended(REQUEST_LIMIT_MS) }),
});

const stat = jsonRoute({
  method: "GET",
  path: "/v1/vms/{id}/files/stat",
  tag,
  summary: "What a path is; a symbolic link is not followed.",
  query: onlyPath,
  answer: { status: 200, description: "The entry.", schema: FileStat },
  handle: ({ engine, params, query, deadline }) => engine.statFile(params.id, query.path, deadline(REQUEST_LIMIT_MS)),
});

const list = jsonRoute({
  method: "GET",
  path: "/v1/vms/{id}/files/list",
  tag,
  summary: "Entries of a directory.",
  query: onlyPath,
  answer: { status: 200, description: "The entries.", schema: z.array(FileStat) },
  handle: ({ engine, params, query, deadline }) => engine.listFiles(params.id, query.path, deadline(REQUEST_LIMIT_MS)),
});

const makeDirectory = emptyRoute({
  method: "POST",
  path: "/v1/vms/{id}/files/mkdir",
  tag,
  summary: "Make a directory.",
  query: z.strictObject({
    path: guestPath,
    mode: mode("0755"),
    parents: flag.describe("Also those above it; it may exist."),
  }),
  description: "It is there.",
  handle({ engine, params, query, unattended }) {
    const { path, ...options } = query;
    return engine.makeDirectory(params.id, path, { ...options, deadline: unattended(REQUEST_LIMIT_MS) });
  },
});

export const fileRoutes: readonly Route[] = [read, write, remove, stat, list, makeDirectory];
