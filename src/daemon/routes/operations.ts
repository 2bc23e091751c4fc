/** `/v1/operations`: progress and cancellation of what takes longer than a second. */
import { z } from "zod";
import { Operation } from "../../contract/api.ts";
import { contentRoute, emptyRoute, jsonRoute, type Route } from "../route.ts";
import { type EventSink, eventStream } from "../sse.ts";

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
      description:
        "Events `operation`, whose data is an Operation; of builds also `output`, whose data has a `line` and its `number`.",
      content: "text/event-stream",
      schema: Operation,
    },
    handle({ operations, params, signal }) {
      operations.get(params.id);
      const follow = (sink: EventSink) =>
        operations.watch(params.id, {
          output: (line, number) => sink.send("output", { line, number }),
          state(operation) {
            sink.send("operation", operation);
            if (operation.state !== "running") sink.end();
          },
        });
      return eventStream(follow, signal);
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
