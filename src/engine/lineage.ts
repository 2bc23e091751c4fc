/** Who came from whom: templates, snapshots and VMs as a tree, with the memory that each shares and has to itself. */
import type { Snapshot, Template, TreeNode, Vm } from "../contract/api.ts";
import type { EngineParts } from "./engine.ts";
import type { MemoryShare } from "./shared-memory.ts";

/** Where templates and VMs are. */
export interface TreeParts {
  templates: Pick<EngineParts["templates"], "list">;
  vms: Pick<EngineParts["vms"], "list">;
  /** Memory of VMs and snapshots, by id. */
  memory: (id: string) => MemoryShare;
}

/** All of them, parents before children, siblings by age. A parent that is gone is replaced by the nearest that is there. */
export function drawTree({ templates, vms, memory }: TreeParts, snapshots: readonly Snapshot[]): TreeNode[] {
  const all = templates.list();
  const nodes = [
    ...all.map(templateNode),
    ...snapshots.map((snapshot) => snapshotNode(snapshot, memory(snapshot.id))),
    ...vms.list().map((vm) => vmNode(vm, memory(vm.id))),
  ];
  const known = new Map(nodes.map((node) => [node.id, node]));
  const placed = nodes.map(({ candidates, ...node }) => ({
    ...node,
    parentId: candidates.find((id) => known.has(id) && !descends(known, id, node.id)) ?? null,
  }));
  return inOrder(placed);
}

/** A node, and what it may hang under, the nearest first. */
type Draft = Omit<TreeNode, "parentId"> & { candidates: string[] };

function templateNode({ id, name, createdAt, application, memory }: Template): Draft {
  const state = application === null ? "base" : "application";
  const sizes = { sharedBytes: null, uniqueBytes: memory.allocatedBytes };
  return { kind: "template", id, name, state, createdAt, ...sizes, candidates: [] };
}

function snapshotNode({ id, name, kind, createdAt, vmId, origin, templateId }: Snapshot, memory: MemoryShare): Draft {
  const candidates = [vmId, ...(origin === null ? [] : [origin.id]), templateId];
  return { kind: "snapshot", id, name, state: kind, createdAt, ...memory, candidates };
}

function vmNode({ id, name, state, createdAt, origin, templateId }: Vm, memory: MemoryShare): Draft {
  const candidates = [...(origin === null ? [] : [origin.id]), templateId];
  return { kind: "vm", id, name, state, createdAt, ...memory, candidates };
}

/** Whether `id` hangs under `ancestor`, as a snapshot does whose VM was restored from it. */
function descends(known: ReadonlyMap<string, Draft>, id: string, ancestor: string): boolean {
  for (const seen = new Set<string>(); !seen.has(id); ) {
    if (id === ancestor) return true;
    seen.add(id);
    const parent = known.get(id)?.candidates.find((candidate) => known.has(candidate));
    if (parent === undefined) return false;
    id = parent;
  }
  return false;
}

function inOrder(nodes: readonly TreeNode[]): TreeNode[] {
  const below = Map.groupBy(nodes, ({ parentId }) => parentId);
  const byAge = (list: readonly TreeNode[]) => list.toSorted((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
  const walk = (parentId: string | null): TreeNode[] =>
    byAge(below.get(parentId) ?? []).flatMap((node) => [node, ...walk(node.id)]);
  return walk(null);
}
