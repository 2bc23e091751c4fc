/** `/v1/images`: what the root file systems of VMs are. In paths a name is escaped: `localhost:5000%2Fapp:1`. */
import { z } from "zod";
import {
  BuildImageRequest,
  Image,
  ImageDetails,
  ImportImageRequest,
  LoadImageRequest,
  Operation,
  PruneImagesRequest,
  PruneResult,
  PullImageRequest,
  TagImageRequest,
} from "../../contract/api.ts";
import { bodyChunks } from "../body.ts";
import { flag } from "../query.ts";
import { emptyRoute, jsonRoute, type Route } from "../route.ts";

const tag = "images";
const started = { status: 202, description: "The operation that does it.", schema: Operation };
const location = (operation: Operation) => `/v1/operations/${operation.id}`;
const idsOf = (images: readonly Image[]) => ({ ids: images.map(({ id }) => id) });

const comingIn: readonly Route[] = [
  jsonRoute({
    method: "POST",
    path: "/v1/images",
    tag,
    summary: "Import a root file system from a file on the daemon's host.",
    body: ImportImageRequest,
    answer: started,
    location,
    handle: ({ engine, operations, body }) =>
      operations.start("image.import", async (options) => (await engine.importImage(body, options)).id),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/images/pull",
    tag,
    summary: "Pull an image from a registry, unless it is here as it is there.",
    body: PullImageRequest,
    answer: started,
    location,
    handle: ({ engine, operations, body }) =>
      operations.start("image.pull", async (options) => {
        const { image, unchanged } = await engine.pullImage(body, options);
        return { ids: [image.id], ...(unchanged ? { note: "unchanged" } : {}) };
      }),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/images/load",
    tag,
    summary: "Load the images of an archive or OCI layout on the daemon's host.",
    body: LoadImageRequest,
    answer: started,
    location,
    handle: ({ engine, operations, body }) =>
      operations.start("image.load", async (options) => idsOf(await engine.loadImage(body, options))),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/images/archive",
    tag,
    summary: "Load the images of an archive that is the body. It answers when the whole body has come.",
    body: z.undefined(),
    bodyKind: "raw",
    answer: started,
    location,
    async handle({ engine, operations, request }) {
      const archive = await engine.receiveArchive(bodyChunks(request));
      return operations.start("image.load", async (options) => {
        await using received = archive;
        return idsOf(await engine.loadImage({ path: received.path }, options));
      });
    },
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/images/build",
    tag,
    summary: "Build an image from a Dockerfile. Its output comes with the operation's events.",
    body: BuildImageRequest,
    answer: started,
    location,
    handle: ({ engine, operations, body }) =>
      operations.start("image.build", async (options) => idsOf(await engine.buildImage(body, options))),
  }),
];

const inStore: readonly Route[] = [
  jsonRoute({
    method: "GET",
    path: "/v1/images",
    tag,
    summary: "All images, one entry for each name.",
    answer: { status: 200, description: "The images.", schema: z.array(Image) },
    handle: ({ engine }) => engine.listImages(),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/images/{id}",
    tag,
    summary: "One image, by id, name, digest, or unambiguous beginning of an id.",
    answer: { status: 200, description: "The image.", schema: ImageDetails },
    handle: ({ engine, params }) => engine.inspectImage(params.id),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/images/{id}/tag",
    tag,
    summary: "Give an image one more name.",
    body: TagImageRequest,
    answer: { status: 201, description: "The image under that name.", schema: Image },
    handle: ({ engine, params, body }) => engine.tagImage(params.id, body.name),
  }),
  emptyRoute({
    method: "DELETE",
    path: "/v1/images/{id}",
    tag,
    summary: "Remove a name, and with the last one the image, that no VM uses.",
    query: z.strictObject({ force: flag.describe("All names, if it is given by the beginning of an id.") }),
    description: "It is gone.",
    async handle({ engine, params, query }) {
      await engine.removeImage(params.id, { force: query.force });
    },
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/images/prune",
    tag,
    summary: "Remove images whose name has moved on, or all that no VM uses; and the cache of builds.",
    body: PruneImagesRequest,
    bodyKind: "optional-json",
    answer: { status: 200, description: "What was removed.", schema: PruneResult },
    handle: ({ engine, body }) => engine.pruneImages(body),
  }),
];

export const imageRoutes: readonly Route[] = [...comingIn, ...inStore];
