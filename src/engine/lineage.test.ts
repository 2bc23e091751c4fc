/** The tree of who came from whom, from documents alone. */
import { expect, test } from "bun:test";
import { sampleSnapshot, sampleTemplate, sampleVm } from "../../tests/support/samples.ts";
import type { Snapshot, Vm } from "../contract/api.ts";
import { copyNames } from "./captured-vm.ts";
import { drawTree } from "./lineage.ts";
import { usersOf } from "./snapshot-records.ts";

const at = (second: number) => `2026-01-01T00:00:0${second}.000Z`;
const template = { ...sampleTemplate, id: "tpl_a", createdAt: at(0) };
const vm = (id: string, second: number, change: Partial<Vm> = {}): Vm => ({
  ...sampleVm,
  ...{
    id: `vm_${id}`,
    name: id,
    templateId: "tpl_a",
    origin: null,
    suspendedIn: null,
    createdAt: at(second),
    ...change,
  },
});
const snapshot = (id: string, second: number, change: Partial<Snapshot> = {}): Snapshot => ({
  ...sampleSnapshot,
  ...{ id: `snap_${id}`, name: id, templateId: "tpl_a", origin: null, createdAt: at(second), ...change },
});
const from = (kind: "fork" | "snapshot", id: string) => ({ kind, id, name: null });

/** Each node with what it hangs under. */
function drawn(vms: Vm[], snapshots: Snapshot[]): string[] {
  const memory = () => ({ sharedBytes: null, uniqueBytes: null });
  const parts = { templates: { list: () => [template] }, vms: { list: () => vms }, memory };
  return drawTree(parts, snapshots).map(({ id, parentId }) => `${id} < ${parentId}`);
}

test("children hang under what they came from, by age, parents first", () => {
  const vms = [vm("fork", 3, { origin: from("fork", "vm_one") }), vm("one", 1), vm("two", 2)];
  const clone = vm("clone", 5, { origin: from("snapshot", "snap_s") });
  expect(drawn([...vms, clone], [snapshot("s", 4, { vmId: "vm_fork" })])).toEqual([
    "tpl_a < null",
    "vm_one < tpl_a",
    "vm_fork < vm_one",
    "snap_s < vm_fork",
    "vm_clone < snap_s",
    "vm_two < tpl_a",
  ]);
});

test("a parent that is gone is replaced by the nearest that is there", () => {
  const child = vm("child", 2, { origin: from("fork", "vm_gone") });
  const taken = snapshot("s", 3, { vmId: "vm_gone", origin: from("fork", "vm_child") });
  const lost = vm("lost", 4, { templateId: "tpl_gone" });
  expect(drawn([child, lost], [taken])).toEqual([
    "tpl_a < null",
    "vm_child < tpl_a",
    "snap_s < vm_child",
    "vm_lost < null",
  ]);
});

test("a VM that was restored from a snapshot of itself is no circle", () => {
  const one = vm("one", 1, { origin: from("snapshot", "snap_s") });
  const nodes = drawn([one], [snapshot("s", 2, { vmId: "vm_one" })]);
  expect(nodes.length).toBe(3);
});

test("who needs a snapshot: those that wait in it, and those that would be started from it again", () => {
  const waits = vm("waits", 1, { suspendedIn: "snap_s" });
  const origin = from("snapshot", "snap_s");
  const returns = vm("returns", 1, { origin, restart: { name: "always" }, finishedAt: null });
  const ended = vm("ended", 1, { origin, restart: { name: "always" }, finishedAt: at(9) });
  const clone = vm("clone", 1, { origin, restart: { name: "no" }, finishedAt: null });
  expect(usersOf("snap_s", [waits, returns, ended, clone])).toEqual([
    "VM waits, which is suspended in it",
    "VM returns, which its restart policy starts from it",
  ]);
});

test("names of copies", () => {
  expect(copyNames("web", 1)).toEqual(["web"]);
  expect(copyNames("web", 3)).toEqual(["web-1", "web-2", "web-3"]);
  expect(copyNames(undefined, 2)).toEqual([undefined, undefined]);
  expect(() => copyNames("x".repeat(62), 10)).toThrow("at most 63");
});
