import { expect, test } from "bun:test";
import { z } from "zod";
import * as api from "../contract/api.ts";
import { openApi } from "./openapi.ts";
import { routes } from "./routes/table.ts";

const Media = z.record(z.string(), z.looseObject({}));
/** As much of the OpenAPI 3.1 specification as the document uses (sections 4.8.1 to 4.8.21), strictly. */
const Parameter = z.strictObject({
  name: z.string(),
  in: z.enum(["path", "query", "header"]),
  required: z.boolean().optional(),
  description: z.string().optional(),
  schema: z.looseObject({}),
});
const OperationObject = z.strictObject({
  operationId: z.string().regex(/^[a-z][A-Za-z]+$/),
  summary: z.string().min(1),
  tags: z.array(z.string()),
  parameters: z.array(Parameter),
  requestBody: z.strictObject({ required: z.boolean(), content: Media }).optional(),
  responses: z.record(
    z.string().regex(/^\d{3}$|^default$/),
    z.strictObject({ description: z.string().min(1), content: Media.optional() }),
  ),
  security: z.array(z.record(z.string(), z.array(z.string()))).optional(),
  "x-websocket": z.looseObject({}).optional(),
});
const Document = z.strictObject({
  openapi: z.literal("3.1.0"),
  info: z.strictObject({
    title: z.string(),
    version: z.string(),
    license: z.strictObject({ name: z.string(), identifier: z.string() }),
  }),
  servers: z.array(z.strictObject({ url: z.string(), description: z.string() })),
  security: z.array(z.record(z.string(), z.array(z.string()))),
  paths: z.record(
    z.string().startsWith("/"),
    z.partialRecord(z.enum(["get", "post", "put", "delete"]), OperationObject),
  ),
  components: z.strictObject({
    schemas: z.record(z.string(), z.looseObject({})),
    securitySchemes: z.record(z.string(), z.looseObject({})),
  }),
});

const text = JSON.stringify(openApi(routes));
const document = Document.parse(JSON.parse(text));

test("every route is there, with its path parameters", () => {
  for (const { method, path } of routes) {
    const operation = document.paths[path]?.[method.toLowerCase() as "get"];
    const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    const parameters = operation?.parameters.filter((parameter) => parameter.in === "path") ?? [];
    expect({ method, path, names: parameters.map(({ name }) => name) }).toEqual({
      method,
      path,
      names: named.map(String),
    });
    expect(parameters.every(({ required }) => required === true)).toBe(true);
  }
  expect(Object.values(document.paths).flatMap((item) => Object.keys(item))).toHaveLength(routes.length);
});

test("operation ids are unique", () => {
  const ids = Object.values(document.paths).flatMap((item) =>
    Object.values(item).map((operation) => operation?.operationId),
  );
  expect(new Set(ids).size).toBe(ids.length);
});

test("every reference has its schema, every schema of the contract is there and is referred to", () => {
  const references = new Set([...text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, reference]) => reference ?? ""));
  const schemas = Object.keys(document.components.schemas);
  for (const reference of references) expect(schemas).toContain(reference.replace("#/components/schemas/", ""));
  const contract = Object.entries(api).flatMap(([name, value]) => (value instanceof z.ZodType ? [name] : []));
  expect(schemas.sort()).toEqual(contract.sort());
  for (const name of contract) expect(references).toContain(`#/components/schemas/${name}`);
});

test("request bodies, query parameters and headers are described", () => {
  const create = document.paths["/v1/vms"]?.post;
  expect(create?.requestBody).toEqual({
    required: true,
    content: { "application/json": { schema: { $ref: "#/components/schemas/CreateVmRequest" } } },
  });
  expect(create?.parameters.map(({ name }) => name)).toEqual(["Idempotency-Key"]);
  expect(Object.keys(create?.responses ?? {})).toEqual(["201", "default"]);
  const put = document.paths["/v1/vms/{id}/files"]?.put;
  expect(put?.requestBody?.content).toEqual({ "application/octet-stream": {} });
  const parameters = put?.parameters.map(({ name, in: where, required }) => [name, where, required ?? false]);
  expect(parameters).toEqual([
    ["id", "path", true],
    ["path", "query", true],
    ["mode", "query", false],
    ["uid", "query", false],
    ["gid", "query", false],
    ["parents", "query", false],
  ]);
});
