/** The OpenAPI 3.1 document, made from the route table and the schemas that validate requests. */
import { z } from "zod";
import * as api from "../contract/api.ts";
import { daemonVersion } from "./config.ts";
import type { Answer, Route } from "./route.ts";

type Json = Record<string, unknown>;

const PROBLEM = { $ref: "#/components/schemas/Problem" };

/** The document for a table of routes. */
export function openApi(routes: readonly Route[]): Json {
  const { schemas, names } = components();
  const paths: Record<string, Json> = {};
  for (const route of routes) {
    const item = paths[route.path] ?? {};
    paths[route.path] = item;
    const method = route.method.toLowerCase();
    // OpenAPI has one operation for each method of a path: a stream's GET is the only one there.
    item[method] = operation(route, names);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Mayfly",
      version: daemonVersion().version,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/", description: "The daemon's unix socket; TCP when it is told to listen there." }],
    security: [{}, { token: [] }],
    paths,
    components: {
      schemas,
      securitySchemes: { token: { type: "http", scheme: "bearer", description: "Needed on TCP only." } },
    },
  };
}

/** The contract's schemas by name, and the name of each. */
function components(): { schemas: Json; names: Map<z.ZodType, string> } {
  const registry = z.registry<{ id: string }>();
  const names = new Map<z.ZodType, string>();
  for (const [name, value] of Object.entries(api)) {
    if (!(value instanceof z.ZodType)) continue;
    registry.add(value, { id: name });
    names.set(value, name);
  }
  const { schemas } = z.toJSONSchema(registry, { io: "input", uri: (id) => `#/components/schemas/${id}` });
  return { schemas: Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, plain(schema)])), names };
}

/** A schema without what belongs to a document of its own. */
function plain(schema: object): Json {
  const { $schema: _dialect, $id: _id, ...rest } = schema as Json;
  return rest;
}

function operation(route: Route, names: Map<z.ZodType, string>): Json {
  const { answer, body } = route;
  return {
    operationId: operationId(route),
    summary: route.summary,
    tags: [route.tag],
    parameters: [...pathParameters(route), ...queryParameters(route), ...headerParameters(route)],
    ...(body.kind === "none" ? {} : { requestBody: requestBody(route, names) }),
    ...(route.open ? { security: [{}] } : {}),
    ...(answer.status === 101 ? streamMessages() : {}),
    responses: {
      [answer.status]: { description: answer.description, ...answerContent(answer, names) },
      default: {
        description: "A problem document (RFC 9457).",
        content: { "application/problem+json": { schema: PROBLEM } },
      },
    },
  };
}

function answerContent({ content, schema }: Answer, names: Map<z.ZodType, string>): Json {
  if (schema !== undefined)
    return { content: { [content ?? "application/json"]: { schema: reference(schema, names) } } };
  return content === undefined ? {} : { content: { [content]: {} } };
}

/** OpenAPI cannot describe a WebSocket's messages: an extension names them. */
function streamMessages(): Json {
  const message = (name: string) => ({ $ref: `#/components/schemas/${name}` });
  return { "x-websocket": { clientMessages: message("StreamRequest"), serverMessages: message("StreamReply") } };
}

function requestBody(route: Route, names: Map<z.ZodType, string>): Json {
  const { kind, schema, content } = route.body;
  const media = kind === "raw" ? {} : { schema: reference(schema, names) };
  return { required: kind === "json", content: { [content]: media } };
}

/** A reference to a schema of the contract, or to an array of one. */
function reference(schema: z.ZodType, names: Map<z.ZodType, string>): Json {
  const name = names.get(schema);
  if (name !== undefined) return { $ref: `#/components/schemas/${name}` };
  if (schema instanceof z.ZodArray) return { type: "array", items: reference(schema.element as z.ZodType, names) };
  return plain(z.toJSONSchema(schema, { io: "input" }));
}

function pathParameters(route: Route): Json[] {
  return [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
}

function queryParameters(route: Route): Json[] {
  const { properties = {}, required = [] } = z.toJSONSchema(route.query, { io: "input" });
  return Object.entries(properties).map(([name, property]) => {
    const { description, ...schema } = plain(property as object);
    return {
      name,
      in: "query",
      required: required.includes(name),
      ...(description === undefined ? {} : { description }),
      schema,
    };
  });
}

function headerParameters(route: Route): Json[] {
  return Object.entries(route.headers).map(([name, description]) => ({
    name,
    in: "header",
    description,
    schema: { type: "string" },
  }));
}

/** e.g. `postVmsIdKill`. */
function operationId(route: Route): string {
  const words = route.path.split(/[/{}.]+/).filter((word) => word !== "" && word !== "v1");
  return route.method.toLowerCase() + words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
}
