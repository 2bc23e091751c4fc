/** Ids: a prefix, an underscore, and a UUIDv7 in 26 characters of lower-case base32 (RFC 4648 alphabet, no padding). */

/** What an id names. */
export type IdPrefix = "vm" | "tpl" | "snap" | "img" | "op" | "ex" | "vol";

/** An id with its prefix, e.g. `vm_agmx...`. */
export type Id<P extends IdPrefix = IdPrefix> = `${P}_${string}`;
export type VmId = Id<"vm">;
export type TemplateId = Id<"tpl">;
export type SnapshotId = Id<"snap">;
export type ImageId = Id<"img">;
export type OperationId = Id<"op">;
/** A process started by exec in a VM. */
export type ExecId = Id<"ex">;

/** Characters of the random part of an id. */
export const ID_LENGTH = 26;

/** Where the random part begins in these characters; before it is the time, which ids made together share. */
export const ID_RANDOM_OFFSET = 10;

/** Characters of the random part that tables show. */
export const SHORT_ID_LENGTH = 12;

/** The short form of an id, accepted wherever an id is: the first characters of its random part. */
export function shortId(id: string): string {
  const bare = id.slice(id.indexOf("_") + 1);
  return bare.slice(ID_RANDOM_OFFSET, ID_RANDOM_OFFSET + SHORT_ID_LENGTH);
}

/** Names that users give: docker's rule, at most 63 characters so that a name can be a host name. */
export const NAME_PATTERN = "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$";
