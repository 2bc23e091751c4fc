/** A route as data: what dispatch, validation and the OpenAPI document are all made from. */
import { z } from "zod";
import type { ForkResult, Snapshot, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Engine } from "../engine/interface.ts";
import { Deadline } from "../sys/deadline.ts";
import type { StreamAcceptor } from "../sys/http.ts";
import { readJson } from "./body.ts";
import type { IdempotencyKeys } from "./idempotency.ts";
import type { Operations } from "./operations.ts";

export type Method = "GET" | "POST" | "PUT" | "DELETE";

/** What routes work on. */
export interface Services {
  readonly engine: Engine;
  readonly operations: Operations;
  readonly vmCreations: IdempotencyKeys<Vm>;
  readonly checkpoints: IdempotencyKeys<Snapshot>;
  readonly forks: IdempotencyKeys<ForkResult>;
  /** Everything that is served, for the OpenAPI document. */
  readonly routes: readonly Route[];
}

/** What a route answers with. */
export interface Answer {
  status: number;
  description: string;
  /** Schema of a JSON answer, or of the data of each event. */
  schema?: z.ZodType;
  /** Media type of an answer that is not a JSON document. */
  content?: string;
}

/** How a route is called. `raw`: the handler reads the body itself. */
export type BodyKind = "none" | "json" | "optional-json" | "raw";

/** A route with its types erased. */
export interface Route {
  readonly method: Method;
  /** e.g. `/v1/vms/{id}/exec`. */
  readonly path: string;
  readonly summary: string;
  readonly tag: string;
  readonly query: z.ZodObject;
  readonly body: { kind: BodyKind; schema: z.ZodType; content: string };
  readonly answer: Answer;
  /** Request headers that mean something here, with what they mean. */
  readonly headers: Readonly<Record<string, string>>;
  /** Without a token on TCP too. */
  readonly open: boolean;
  run(
    services: Services,
    request: Request,
    url: URL,
    params: Readonly<Record<string, string>>,
  ): Promise<Response | StreamAcceptor>;
}

type ParamNames<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}`
  ? Name | ParamNames<Rest>
  : never;

/** What a handler gets: all of it validated. */
export interface Call<Path extends string, Query, Body> extends Services {
  params: Record<ParamNames<Path>, string>;
  query: Query;
  body: Body;
  request: Request;
  /** Fires when the client goes away. */
  signal: AbortSignal;
  /** A deadline from now that also ends when the client goes away. */
  deadline(limitMs: number): Deadline;
  /** A deadline from now for what is better finished than left half done: the client's going does not end it. */
  unattended(limitMs: number): Deadline;
}

interface Definition<Path extends string, Query extends z.ZodObject, Body extends z.ZodType> {
  method: Method;
  path: Path;
  summary: string;
  tag: string;
  query?: Query;
  body?: Body;
  bodyKind?: BodyKind;
  headers?: Readonly<Record<string, string>>;
  open?: boolean;
}

type Answering<Path extends string, Query extends z.ZodObject, Body extends z.ZodType, Result> = (
  call: Call<Path, z.output<Query>, z.output<Body>>,
) => Promise<Result> | Result;

const NoQuery = z.strictObject({});
type NoQuery = typeof NoQuery;
const NoBody = z.undefined();
type NoBody = typeof NoBody;

/** A route that answers with a JSON document of `schema`. */
export function jsonRoute<
  Path extends string,
  Schema extends z.ZodType,
  Query extends z.ZodObject = NoQuery,
  Body extends z.ZodType = NoBody,
>(
  definition: Definition<Path, Query, Body> & {
    answer: { status: number; description: string; schema: Schema };
    /** Where what was made can be found, from the answer. */
    location?: (answer: z.output<Schema>) => string;
    handle: Answering<Path, Query, Body, z.output<Schema>>;
  },
): Route {
  return erase(definition, definition.answer, async (call) => {
    const document = await definition.handle(call);
    const headers = definition.location === undefined ? {} : { location: definition.location(document) };
    return Response.json(document, { status: definition.answer.status, headers });
  });
}

/** A route without an answer's body (204). */
export function emptyRoute<Path extends string, Query extends z.ZodObject = NoQuery, Body extends z.ZodType = NoBody>(
  definition: Definition<Path, Query, Body> & { description: string; handle: Answering<Path, Query, Body, void> },
): Route {
  return erase(definition, { status: 204, description: definition.description }, async (call) => {
    await definition.handle(call);
    return new Response(null, { status: 204 });
  });
}

/** A route whose handler makes the whole Response: streams, files and text. */
export function contentRoute<Path extends string, Query extends z.ZodObject = NoQuery, Body extends z.ZodType = NoBody>(
  definition: Definition<Path, Query, Body> & {
    answer: { status: number; description: string; content: string; schema?: z.ZodType };
    handle: Answering<Path, Query, Body, Response>;
  },
): Route {
  return erase(definition, definition.answer, async (call) => definition.handle(call));
}

/** A route that turns the connection into a WebSocket with the messages of `StreamRequest` and `StreamReply`. */
export function streamRoute<Path extends string>(
  definition: Definition<Path, NoQuery, NoBody> & {
    handle: (call: Call<Path, z.output<NoQuery>, undefined>) => StreamAcceptor;
  },
): Route {
  const answer = { status: 101, description: "A WebSocket: see docs/API.md, Streams." };
  return erase(definition, answer, async (call) => {
    if (call.request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
      throw new MayflyError(
        "invalid_argument",
        `${definition.path} is a WebSocket: the request lacks "Upgrade: websocket"`,
      );
    }
    return definition.handle(call);
  });
}

function erase<Path extends string, Query extends z.ZodObject, Body extends z.ZodType>(
  definition: Definition<Path, Query, Body>,
  answer: Answer,
  run: (call: Call<Path, z.output<Query>, z.output<Body>>) => Promise<Response | StreamAcceptor>,
): Route {
  const kind = definition.bodyKind ?? (definition.body === undefined ? "none" : "json");
  const query: z.ZodObject = definition.query ?? NoQuery;
  const schema: z.ZodType = definition.body ?? NoBody;
  return {
    method: definition.method,
    path: definition.path,
    summary: definition.summary,
    tag: definition.tag,
    query,
    body: { kind, schema, content: kind === "raw" ? "application/octet-stream" : "application/json" },
    answer,
    headers: definition.headers ?? {},
    open: definition.open ?? false,
    async run(services, request, url, params) {
      const parsedQuery = parse(query, Object.fromEntries(url.searchParams), "the query") as z.output<Query>;
      const json =
        kind === "json" || kind === "optional-json" ? await readJson(request, kind === "optional-json") : undefined;
      const body = parse(schema, json, "the request") as z.output<Body>;
      const signal = request.signal;
      return run({
        ...services,
        params: params as Record<ParamNames<Path>, string>,
        query: parsedQuery,
        body,
        request,
        signal,
        deadline: (limitMs) => Deadline.after(limitMs, signal),
        unattended: (limitMs) => Deadline.after(limitMs),
      });
    },
  };
}

/**
 * Checks a document against its schema.
 * @throws `invalid_argument` with every problem and its path in `details.problems`.
 */
export function parse<Schema extends z.ZodType>(schema: Schema, document: unknown, what: string): z.output<Schema> {
  const result = schema.safeParse(document);
  if (result.success) return result.data;
  const problems = result.error.issues.map(describe);
  throw new MayflyError("invalid_argument", `Cannot take ${what}: ${problems.join("; ")}`, { details: { problems } });
}

/** A request is named without the message that it comes in. */
function describe(issue: z.core.$ZodIssue): string {
  const names = issue.path.map(String);
  const path = (names[0] === "request" ? names.slice(1) : names).join(".");
  return path === "" ? issue.message : `${path}: ${issue.message}`;
}
