/** Where a template, snapshot or VM is in the tree, and its memory, for `inspect`. */
import type { Client } from "../client/client.ts";
import type { TreeNode } from "../contract/api.ts";

/** What `inspect` adds to a document. */
export type Lineage = Pick<TreeNode, "parentId" | "sharedBytes" | "uniqueBytes"> & {
  /** Ids of what hangs under it. */
  childIds: string[];
};

/** Adds to a document where it is in the tree; null if it has gone from there meanwhile. */
export async function withLineage<T extends { id: string }>(
  client: Client,
  document: T,
): Promise<T & { lineage: Lineage | null }> {
  const tree = await client.snapshots.tree();
  const node = tree.find(({ id }) => id === document.id);
  if (node === undefined) return { ...document, lineage: null };
  const { parentId, sharedBytes, uniqueBytes } = node;
  const childIds = tree.filter((other) => other.parentId === node.id).map(({ id }) => id);
  return { ...document, lineage: { parentId, childIds, sharedBytes, uniqueBytes } };
}
