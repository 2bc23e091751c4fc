/** `/v1/templates`: what VMs are cloned from. */
import { z } from "zod";
import { BuildTemplateRequest, Operation, PoolRequest, Template, VerifyResult } from "../../contract/api.ts";
import { VERIFY_LIMIT_MS } from "../limits.ts";
import { flag } from "../query.ts";
import { emptyRoute, jsonRoute, type Route } from "../route.ts";

const started = { status: 202, description: "The operation that does it.", schema: Operation };
const location = (operation: Operation) => `/v1/operations/${operation.id}`;

export const templateRoutes: readonly Route[] = [
  jsonRoute({
    method: "POST",
    path: "/v1/templates",
    tag: "templates",
    summary: "Build a template of a size or of an application, unless it is there.",
    body: BuildTemplateRequest,
    bodyKind: "optional-json",
    answer: started,
    location,
    handle: ({ engine, operations, body }) =>
      operations.start("template.build", async (options) => (await engine.buildTemplate(body, options)).id),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/templates",
    tag: "templates",
    summary: "All templates.",
    answer: { status: 200, description: "The templates.", schema: z.array(Template) },
    handle: ({ engine }) => engine.listTemplates(),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/templates/{id}",
    tag: "templates",
    summary: "One template, by id, name, or unambiguous beginning of the id.",
    answer: { status: 200, description: "The template.", schema: Template },
    handle: ({ engine, params }) => engine.getTemplate(params.id),
  }),
  jsonRoute({
    method: "PUT",
    path: "/v1/templates/{id}/pool",
    tag: "templates",
    summary: "Set how many clones of a template are kept prepared.",
    body: PoolRequest,
    answer: { status: 200, description: "The template.", schema: Template },
    handle: ({ engine, params, body }) => engine.resizePool(params.id, body),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/templates/{id}/verify",
    tag: "templates",
    summary: "Check a template's files against its manifest.",
    answer: { status: 200, description: "What was found.", schema: VerifyResult },
    handle: ({ engine, params, deadline }) => engine.verifyTemplate(params.id, deadline(VERIFY_LIMIT_MS)),
  }),
  emptyRoute({
    method: "DELETE",
    path: "/v1/templates/{id}",
    tag: "templates",
    summary: "Remove a template that no VM uses.",
    query: z.strictObject({ force: flag.describe("Also if it is the one that new VMs would take.") }),
    description: "It is gone.",
    handle: ({ engine, params, query }) => engine.removeTemplate(params.id, { force: query.force }),
  }),
];
