/** `/v1/operations`: progress and cancellation of what takes longer than a second. */
import { z } from "zod";
import { Operation } from "../../contract/api.ts";
import { contentRoute, emptyRoute, jsonRoute, type Route } from "../route.ts";
import { eventStream } from "../sse.ts";

const tag = "operations";

export const operationRoutes: readonly Route[] = [
  jsonRoute({
    method: "GET",
    path: "/v1/operations",
    tag,
    summary: "Running operations and the last ended ones of this daemon.",
    answer: { status: 200, description: "The operations.", schema: z.array(Operation) },
    handle: ({ operations }) => operations.list(),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/operations/{id}",
    tag,
    summary: "One operation.",
    answer: { status: 200, description: "The operation.", schema: Operation },
    handle: ({ operations, params }) => operations.get(params.id),
  }),
  contentRoute({
    method: "GET",
    path: "/v1/operations/{id}/events",
    tag,
    summary: "Progress: the operation now, then after each change, until it has ended.",
    answer: {
      status: 200,
      description: "Events `operation`, whose data is an Operation.",
      content: "text/event-stream",
      schema: Operation,
    },
    handle({ operations, params, signal }) {
      const now = operations.get(params.id);
      return eventStream((sink) => {
        const send = (operation: Operation) => {
          sink.send("operation", operation);
          if (operation.state !== "running") sink.end();
        };
        const stop = operations.watch(params.id, send);
        send(now);
        return stop;
      }, signal);
    },
  }),
  emptyRoute({
    method: "DELETE",
    path: "/v1/operations/{id}",
    tag,
    summary: "Cancel a running operation; an ended one stays as it is.",
    description: "It was asked to stop; its state becomes `cancelled` when it has.",
    handle: ({ operations, params }) => operations.cancel(params.id),
  }),
];
