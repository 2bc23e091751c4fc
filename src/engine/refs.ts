/** References as users give them: an id, a name, or an unambiguous prefix of an id, with or without its `vm_`. */
import { MayflyError } from "../contract/errors.ts";
import { ID_RANDOM_OFFSET } from "../contract/ids.ts";

/** Something that can be referred to. */
export interface Referable {
  id: string;
  name: string | null;
}

const NOT_FOUND = {
  vm: "vm_not_found",
  template: "template_not_found",
  image: "image_not_found",
  snapshot: "snapshot_not_found",
} as const;

/**
 * Finds what `ref` means: a whole id or a name first, then a prefix of the id or of its random part.
 * @throws `vm_not_found`, `template_not_found`, `image_not_found`, `snapshot_not_found`; `id_ambiguous` naming what it may mean.
 */
export function resolveRef<T extends Referable>(all: readonly T[], ref: string, what: keyof typeof NOT_FOUND): T {
  const exact = all.find((item) => item.id === ref) ?? all.find((item) => item.name === ref);
  if (exact !== undefined) return exact;
  const prefixed = ref === "" ? [] : all.filter(({ id }) => prefixable(id).some((part) => part.startsWith(ref)));
  const [only, ...others] = prefixed;
  if (only === undefined) throw new MayflyError(NOT_FOUND[what], `There is no ${what} ${JSON.stringify(ref)}`);
  if (others.length > 0) {
    const ids = prefixed.map((item) => item.id).join(", ");
    throw new MayflyError("id_ambiguous", `${JSON.stringify(ref)} means more than one ${what}: ${ids}`);
  }
  return only;
}

/** The id, its part after the prefix (which begins with the time), and its random part. */
function prefixable(id: string): string[] {
  const bare = id.slice(id.indexOf("_") + 1);
  return [id, bare, bare.slice(ID_RANDOM_OFFSET)];
}
