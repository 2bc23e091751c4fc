/** Images: what the root file systems of VMs are. */
import type {
  BuildImageRequest,
  Image,
  ImageDetails,
  ImportImageRequest,
  LoadImageRequest,
  PruneImagesRequest,
  PruneResult,
  PullImageRequest,
} from "../contract/api.ts";
import { finished, type OperationOptions } from "./operations.ts";
import { type CallOptions, type Rest, segment } from "./rest.ts";

/** What came of a pull. */
export interface PullResult {
  image: Image;
  /** Nothing was fetched: the registry has what was here. */
  unchanged: boolean;
}

/** What can be done with images. `image` is a name, an id, a digest, or an unambiguous beginning of an id. Paths are the daemon's host's. */
export interface Images {
  /** Imports a root file system from a tarball, and waits for it. */
  import(request: ImportImageRequest, options?: OperationOptions): Promise<Image>;
  /** Pulls an image from a registry, unless it is here as it is there. */
  pull(request: PullImageRequest, options?: OperationOptions): Promise<PullResult>;
  /** Loads all images of an archive or an OCI layout. */
  load(request: LoadImageRequest, options?: OperationOptions): Promise<Image[]>;
  /** Loads all images of an archive that is sent. */
  send(archive: Uint8Array | AsyncIterable<Uint8Array>, options?: OperationOptions): Promise<Image[]>;
  /** Builds a Dockerfile; one entry for each name that the image gets. */
  build(request: BuildImageRequest, options?: OperationOptions): Promise<Image[]>;
  list(options?: CallOptions): Promise<Image[]>;
  get(image: string, options?: CallOptions): Promise<ImageDetails>;
  /** Gives an image one more name. */
  tag(image: string, name: string, options?: CallOptions): Promise<Image>;
  /** Takes a name away, and with the last one the image. */
  remove(image: string, options?: CallOptions & { force?: boolean }): Promise<void>;
  prune(request?: PruneImagesRequest, options?: CallOptions): Promise<PruneResult>;
}

/** The calls for images. */
export function images(rest: Rest): Images {
  const at = (image: string, verb = "") => `/v1/images/${segment(image)}${verb}`;
  const get = (image: string, options?: CallOptions) => rest.json<ImageDetails>("GET", at(image), options);
  const one = async (id: string): Promise<Image> => {
    const { document: _document, ...image } = await get(id);
    return image;
  };
  const all = (ids: readonly string[]) => Promise.all(ids.map(one));
  return {
    import: async (json, options = {}) => one((await finished(rest, "/v1/images", { json }, options)).result),
    async pull(json, options = {}) {
      const { result, note } = await finished(rest, "/v1/images/pull", { json }, options);
      return { image: await one(result), unchanged: note === "unchanged" };
    },
    load: async (json, options = {}) => all((await finished(rest, "/v1/images/load", { json }, options)).results),
    send: async (content, options = {}) =>
      all((await finished(rest, "/v1/images/archive", { content }, options)).results),
    build: async (json, options = {}) => all((await finished(rest, "/v1/images/build", { json }, options)).results),
    list: (options) => rest.json("GET", "/v1/images", options),
    get,
    tag: (image, name, options) => rest.json("POST", at(image, "/tag"), { ...options, json: { name } }),
    remove: (image, { force, ...options } = {}) => rest.empty("DELETE", at(image), { ...options, query: { force } }),
    prune: (json = {}, options = {}) => rest.json("POST", "/v1/images/prune", { ...options, json }),
  };
}
