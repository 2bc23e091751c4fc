/** The tree of templates, snapshots and VMs, drawn. */
import type { TreeNode } from "../contract/api.ts";
import { shortId } from "./ids.ts";
import { formatBytes, formatElapsed } from "./sizes.ts";

/** Headings of {@link treeRows}. */
export const TREE_HEADING = ["NAME", "KIND", "STATE", "AGE", "SHARED", "UNIQUE"] as const;

/**
 * The nodes as rows of a table, children below their parents in the order in which they came.
 * @param nodes in any order; one whose parent is not among them is a root.
 * @param whole shows whole ids of what has no name.
 */
export function treeRows(nodes: readonly TreeNode[], nowMs: number, whole = false): string[][] {
  const known = new Set(nodes.map(({ id }) => id));
  const below = Map.groupBy(nodes, ({ parentId }) => (parentId !== null && known.has(parentId) ? parentId : null));
  const rows: string[][] = [];
  const drawn = new Set<string>();
  // An own stack: a tree of forks of forks may be deeper than calls go.
  const waiting: Place[] = placesOf(below.get(null) ?? [], "", true);
  for (let place = waiting.pop(); place !== undefined; place = waiting.pop()) {
    const { node, lead, childLead } = place;
    if (drawn.has(node.id)) continue;
    drawn.add(node.id);
    rows.push(rowOf(node, lead, nowMs, whole));
    waiting.push(...placesOf(below.get(node.id) ?? [], childLead, false));
  }
  return rows;
}

/** A node with what is drawn ahead of it, and ahead of what is below it. */
interface Place {
  node: TreeNode;
  lead: string;
  childLead: string;
}

/** The places of siblings, the last first. */
function placesOf(siblings: readonly TreeNode[], lead: string, areRoots: boolean): Place[] {
  const places = siblings.map((node, index): Place => {
    if (areRoots) return { node, lead: "", childLead: "" };
    const isLast = index === siblings.length - 1;
    return { node, lead: `${lead}${isLast ? "└─ " : "├─ "}`, childLead: `${lead}${isLast ? "   " : "│  "}` };
  });
  return places.reverse();
}

function rowOf(node: TreeNode, lead: string, nowMs: number, whole: boolean): string[] {
  const bytes = (count: number | null) => (count === null ? "-" : formatBytes(count));
  return [
    `${lead}${node.name ?? (whole ? node.id : shortId(node.id))}`,
    node.kind,
    node.state,
    formatElapsed(node.createdAt, nowMs),
    bytes(node.sharedBytes),
    bytes(node.uniqueBytes),
  ];
}
