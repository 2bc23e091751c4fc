/** What the daemon is, has and does as a whole. */
import { z } from "zod";
import { DiskUsage, Event, PruneResult, SystemInfo, Version } from "../../contract/api.ts";
import { daemonVersion } from "../config.ts";
import { VERIFY_LIMIT_MS } from "../limits.ts";
import { contentRoute, jsonRoute, type Route } from "../route.ts";
import { eventStream } from "../sse.ts";

const tag = "system";

export const systemRoutes: readonly Route[] = [
  contentRoute({
    method: "GET",
    path: "/healthz",
    tag,
    summary: "Whether the daemon answers.",
    open: true,
    answer: { status: 200, description: "It does.", content: "text/plain" },
    handle: () => new Response("ok\n", { headers: { "content-type": "text/plain; charset=utf-8" } }),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/version",
    tag,
    summary: "Version of the daemon and of its interface.",
    answer: { status: 200, description: "The version.", schema: Version },
    handle: () => daemonVersion(),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/system/info",
    tag,
    summary: "What the daemon runs with: QEMU, kernel, accelerator, pools.",
    answer: { status: 200, description: "The facts.", schema: SystemInfo },
    handle: ({ engine }) => engine.info(),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/system/df",
    tag,
    summary: "Use of the disk.",
    answer: { status: 200, description: "Bytes as allocated.", schema: DiskUsage },
    handle: ({ engine }) => engine.diskUsage(),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/system/prune",
    tag,
    summary: "Remove ended VMs, and templates that fit this host no more.",
    answer: { status: 200, description: "What was removed.", schema: PruneResult },
    handle: ({ engine, unattended }) => engine.prune(unattended(VERIFY_LIMIT_MS)),
  }),
  contentRoute({
    method: "GET",
    path: "/v1/events",
    tag,
    summary: "What happens, as it happens.",
    query: z.strictObject({
      type: z.string().optional().describe("Only types that begin so, e.g. `vm.`."),
      id: z.string().optional().describe("Only of the VM, template or image with this id."),
    }),
    answer: {
      status: 200,
      description: "Events named by their type, whose data is an Event.",
      content: "text/event-stream",
      schema: Event,
    },
    handle: ({ engine, query, signal }) =>
      eventStream(
        (sink) =>
          engine.subscribe((event) => {
            const wanted = event.type.startsWith(query.type ?? "") && (query.id ?? event.id) === event.id;
            if (wanted) sink.send(event.type, event);
          }),
        signal,
      ),
  }),
  contentRoute({
    method: "GET",
    path: "/metrics",
    tag,
    summary: "Metrics in Prometheus' text format.",
    answer: { status: 200, description: "The metrics.", content: "text/plain" },
    async handle({ engine }) {
      const { exposition } = await import("../metrics.ts");
      return new Response(exposition(engine.metrics()), {
        headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
      });
    },
  }),
  contentRoute({
    method: "GET",
    path: "/v1/openapi.json",
    tag,
    summary: "This interface as an OpenAPI 3.1 document.",
    answer: { status: 200, description: "The document.", content: "application/json" },
    async handle({ routes }) {
      const { openApi } = await import("../openapi.ts");
      return Response.json(openApi(routes));
    },
  }),
];
