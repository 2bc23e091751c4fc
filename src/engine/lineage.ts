/** Who came from whom: templates, snapshots and VMs as a tree, with the memory that each shares and has to itself. */
import type { Snapshot, Template, TreeNode, Vm } from "../contract/api.ts";
import { PAGE_BYTES } from "../sys/memory-file.ts";
import { uniqueMemoryOf } from "../sys/process.ts";
import type { EngineParts } from "./engine.ts";

/** Where templates and VMs are. */
export interface TreeParts {
  templates: Pick<EngineParts["templates"], "list">;
  vms: Pick<EngineParts["vms"], "list" | "runningOf">;
}

/** All of them, parents before children, siblings by age. A parent that is gone is replaced by the nearest that is there. */
export function drawTree({ templates, vms }: TreeParts, snapshots: readonly Snapshot[]): TreeNode[] {
  const all = templates.list();
  const nodes = [
    ...all.map(templateNode),
    ...snapshots.map((snapshot) => snapshotNode(snapshot, all)),
    ...vms.list().map((vm) => vmNode(vm, all, memoryOf(vms, vm))),
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

function snapshotNode(snapshot: Snapshot, templates: readonly Template[]): Draft {
  const { id, name, kind, createdAt, vmId, origin, templateId, pages, zeroPages, sizeBytes } = snapshot;
  const base = templates.find((template) => template.id === templateId);
  const delta = (pages - zeroPages) * PAGE_BYTES;
  const sharedBytes = base === undefined ? null : Math.max(0, base.memory.allocatedBytes - delta);
  const candidates = [vmId, ...(origin === null ? [] : [origin.id]), templateId];
  return { kind: "snapshot", id, name, state: kind, createdAt, sharedBytes, uniqueBytes: sizeBytes, candidates };
}

function vmNode(
  { id, name, state, createdAt, origin, templateId }: Vm,
  templates: readonly Template[],
  unique: number | null,
): Draft {
  const base = templates.find((template) => template.id === templateId);
  const isShared = base !== undefined && unique !== null;
  const sharedBytes = isShared ? Math.max(0, base.memory.allocatedBytes - unique) : null;
  const candidates = [...(origin === null ? [] : [origin.id]), templateId];
  return { kind: "vm", id, name, state, createdAt, sharedBytes, uniqueBytes: unique, candidates };
}

/** Bytes of guest memory that a VM has copied; null for one without a QEMU. */
function memoryOf(vms: TreeParts["vms"], { id }: Vm): number | null {
  const clone = vms.runningOf(id)?.clone;
  if (clone === undefined) return null;
  return uniqueMemoryOf(clone.qemu.pid, clone.template.memoryPath)?.guestBytes ?? null;
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
