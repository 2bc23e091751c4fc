/** Snapshots over REST: what is asked for twice, what is refused, what takes long. */
import { expect, test } from "bun:test";
import { type ServedDaemon, servedDaemon } from "../../tests/support/served-daemon.ts";
import { ForkResult, Operation, Problem, Snapshot, TreeNode, Vm } from "../contract/api.ts";

async function withVm(): Promise<ServedDaemon> {
  const daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  return daemon;
}

const keyed = (key: string) => ({ headers: { "idempotency-key": key } });

test("with one key a VM is forked once, and written into one snapshot", async () => {
  await using daemon = await withVm();
  const fork = () => daemon.ask(ForkResult, "POST", "/v1/vms/one/fork", { count: 3 }, keyed("a"));
  const [first, second] = await Promise.all([fork(), fork()]);
  expect(first.vmIds).toHaveLength(3);
  expect(second).toEqual(first);
  expect(daemon.engine.vms.size).toBe(4);
  const checkpoint = () => daemon.ask(Snapshot, "POST", "/v1/vms/one/checkpoint", {}, keyed("a"));
  expect(await checkpoint()).toEqual(await checkpoint());
  expect(daemon.engine.snapshots.list()).toHaveLength(1);
  await daemon.call("POST", "/v1/vms", { name: "two" });
  const other = await daemon.ask(Problem, "POST", "/v1/vms/two/fork", { count: 3 }, keyed("a"));
  expect(other.code).toBe("idempotency_conflict");
});

test("children have their parent in origin, and the tree has all of them", async () => {
  await using daemon = await withVm();
  const parent = await daemon.ask(Vm, "GET", "/v1/vms/one");
  const { vmIds } = await daemon.ask(ForkResult, "POST", "/v1/vms/one/fork", { count: 2, namePrefix: "child" });
  const child = await daemon.ask(Vm, "GET", "/v1/vms/child-2");
  expect(child).toMatchObject({ id: vmIds[1] ?? "", origin: { kind: "fork", id: parent.id, name: "one" } });
  const nodes = await daemon.ask(TreeNode.array(), "GET", "/v1/tree");
  expect(nodes.filter(({ parentId }) => parentId === parent.id).map(({ id }) => id)).toEqual(vmIds);
});

test("a suspended VM says in what, and that snapshot is not removed", async () => {
  await using daemon = await withVm();
  const made = await daemon.call("POST", "/v1/vms/one/checkpoint", { stop: true, name: "asleep" });
  const { id } = Snapshot.parse(await made.json());
  expect([made.status, made.headers.get("location")]).toEqual([201, `/v1/snapshots/${id}`]);
  expect(await daemon.ask(Vm, "GET", "/v1/vms/one")).toMatchObject({ state: "suspended", suspendedIn: id, pid: null });
  expect((await daemon.ask(Problem, "DELETE", "/v1/snapshots/asleep")).code).toBe("snapshot_in_use");
  expect((await daemon.ask(Vm, "POST", "/v1/vms/one/resume")).state).toBe("running");
});

test("what cannot be is refused", async () => {
  await using daemon = await withVm();
  const refused: readonly [path: string, json: unknown, code: string][] = [
    ["/v1/vms/one/fork", { count: 0 }, "invalid_argument"],
    ["/v1/vms/one/fork", { count: 257 }, "invalid_argument"],
    ["/v1/vms/one/fork", { namePrefix: "no name" }, "invalid_argument"],
    ["/v1/vms/one/checkpoint", { and: "stop" }, "invalid_argument"],
    ["/v1/vms/none/checkpoint", {}, "vm_not_found"],
    ["/v1/snapshots/none/export", { path: "/tmp/x" }, "snapshot_not_found"],
    ["/v1/snapshots/none/promote", undefined, "snapshot_not_found"],
    ["/v1/snapshots/import", { path: "relative" }, "invalid_argument"],
  ];
  for (const [path, json, code] of refused) {
    const problem: { code: string } = await daemon.ask(Problem, "POST", path, json);
    expect([path, problem.code]).toEqual([path, code]);
  }
  expect((await daemon.ask(Problem, "GET", "/v1/snapshots/x/diff?to=y")).code).toBe("invalid_argument");
});

test("an export is an operation that can be cancelled", async () => {
  await using daemon = await withVm();
  await daemon.call("POST", "/v1/vms/one/checkpoint", { name: "first" });
  daemon.engine.work = () => new Promise(() => undefined);
  const { id } = await daemon.ask(Operation, "POST", "/v1/snapshots/first/export", { path: "/tmp/x" });
  expect((await daemon.call("DELETE", `/v1/operations/${id}`)).status).toBe(204);
  const events = await (await daemon.call("GET", `/v1/operations/${id}/events`)).text();
  expect(events).toContain('"state":"cancelled"');
  const bad = await daemon.ask(Operation, "POST", "/v1/snapshots/import", { path: "/bad" });
  const ended = await (await daemon.call("GET", `/v1/operations/${bad.id}/events`)).text();
  expect(ended).toContain('"snapshot_corrupt"');
});
