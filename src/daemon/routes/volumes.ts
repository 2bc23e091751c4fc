/** `/v1/volumes`: disks that outlive the VMs that mount them. */
import { z } from "zod";
import { CreateVolumeRequest, PruneResult, ResizeVolumeRequest, Volume } from "../../contract/api.ts";
import { flag } from "../query.ts";
import { emptyRoute, jsonRoute, type Route } from "../route.ts";

const tag = "volumes";

export const volumeRoutes: readonly Route[] = [
  jsonRoute({
    method: "POST",
    path: "/v1/volumes",
    tag,
    summary: "Make a volume.",
    body: CreateVolumeRequest,
    bodyKind: "optional-json",
    answer: { status: 201, description: "The volume.", schema: Volume },
    location: ({ name }) => `/v1/volumes/${name}`,
    handle: ({ engine, body }) => engine.createVolume(body),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/volumes",
    tag,
    summary: "All volumes.",
    answer: { status: 200, description: "The volumes.", schema: z.array(Volume) },
    handle: ({ engine }) => engine.listVolumes(),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/volumes/prune",
    tag,
    summary: "Remove the volumes that no VM has and that nobody named.",
    query: z.strictObject({ all: flag.describe("Named ones too.") }),
    answer: { status: 200, description: "What was removed.", schema: PruneResult },
    handle: ({ engine, query }) => engine.pruneVolumes({ all: query.all }),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/volumes/{name}",
    tag,
    summary: "One volume, by its name.",
    answer: { status: 200, description: "The volume.", schema: Volume },
    handle: ({ engine, params }) => engine.getVolume(params.name),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/volumes/{name}/resize",
    tag,
    summary: "Make a volume that no VM has larger.",
    body: ResizeVolumeRequest,
    answer: { status: 200, description: "The volume.", schema: Volume },
    handle: ({ engine, params, body }) => engine.resizeVolume(params.name, body.sizeBytes),
  }),
  emptyRoute({
    method: "DELETE",
    path: "/v1/volumes/{name}",
    tag,
    summary: "Remove a volume that no VM has, with all that is in it.",
    description: "It is gone.",
    handle: ({ engine, params }) => engine.removeVolume(params.name),
  }),
];
