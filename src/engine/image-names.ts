/** What users call images: names as docker completes them, digests, and beginnings of ids. */
import { type Image, NO_NAME } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { ID_RANDOM_OFFSET } from "../contract/ids.ts";
import { formatReference, type Reference, tryReference } from "../contract/reference.ts";

const HEX = /^(sha256:)?[0-9a-f]{1,64}$/;

/**
 * The image that `ref` means: an id or a name as it stands, then the name that docker would complete it to, a name with the digest that
 * its registry knows it by, and last the beginning of an id: of ours (with or without `img_`), of its configuration's digest (which docker
 * calls the image's id) or of its contents'.
 * @throws `image_not_found`; `id_ambiguous` naming what it may mean.
 */
export function findImage(images: readonly Image[], ref: string): Image {
  const named = images.find(({ id }) => id === ref) ?? byName(images, ref);
  if (named !== undefined) return named;
  const matching = withIdPrefix(images, ref);
  const [first] = matching;
  if (first === undefined) throw notFound(ref);
  // Names of one and the same image are no ambiguity.
  const others = matching.filter((image) => identityOf(image) !== identityOf(first));
  if (others.length === 0) return first;
  const ids = [first, ...others].map(identityOf).join(", ");
  throw new MayflyError("id_ambiguous", `${JSON.stringify(ref)} means more than one image: ${ids}`);
}

/** The image with exactly this name, completed as docker does or not. */
export function byName(images: readonly Image[], ref: string): Image | undefined {
  const exact = ref === NO_NAME ? undefined : images.find(({ name }) => name === ref);
  if (exact !== undefined) return exact;
  const reference = tryReference(ref);
  if (reference === undefined) return undefined;
  const whole = formatReference(reference);
  const named = images.find(({ name }) => name === whole);
  return named ?? (reference.digest === undefined ? undefined : withDigest(images, reference));
}

/** What tells one image from another whatever its names: the digest of its configuration, or of its contents. */
export function identityOf(image: Pick<Image, "configDigest" | "digest">): string {
  return image.configDigest ?? image.digest;
}

/** Whether `ref` is the beginning of an id and not a name: an image with several names is meant as a whole then. */
export function isIdPrefix(images: readonly Image[], ref: string): boolean {
  return !images.some(({ id }) => id === ref) && byName(images, ref) === undefined;
}

function withDigest(images: readonly Image[], { domain, path, digest }: Reference): Image | undefined {
  const repository = `${domain}/${path}`;
  return images.find(({ name, manifestDigest, repoDigest }) => {
    const reference = tryReference(name);
    if (reference === undefined || `${reference.domain}/${reference.path}` !== repository) return false;
    return repoDigest === digest || manifestDigest === digest;
  });
}

function withIdPrefix(images: readonly Image[], ref: string): Image[] {
  if (ref === "") return [];
  const hex = HEX.test(ref) ? ref.replace(/^sha256:/, "") : undefined;
  return images.filter(({ id, digest, configDigest }) => {
    const bare = id.slice(id.indexOf("_") + 1);
    if ([id, bare, bare.slice(ID_RANDOM_OFFSET)].some((part) => part.startsWith(ref))) return true;
    const digests = hex === undefined ? [] : [configDigest ?? digest];
    return digests.some((text) => text.slice("sha256:".length).startsWith(hex ?? ""));
  });
}

function notFound(ref: string): MayflyError {
  const reference = tryReference(ref);
  const isPath = ref.startsWith("/") || ref.startsWith(".");
  const remedy = reference === undefined || isPath ? undefined : `mayfly pull ${ref}`;
  return new MayflyError("image_not_found", `There is no image ${JSON.stringify(ref)}`, {
    details: remedy === undefined ? {} : { remedy },
  });
}
