/** Commands for snapshots and forks as processes, over a daemon whose engine is in memory. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { FakeInstallation } from "../../tests/support/mayfly-process.ts";
import type { TreeNode } from "../contract/api.ts";
import { treeRows } from "./tree.ts";

const fake = new FakeInstallation();
beforeAll(async () => {
  await fake.run(["run", "-d", "--name", "web", "sleep", "60"]);
});
afterAll(() => fake[Symbol.asyncDispose]());

const out = async (...args: string[]) => {
  const { stdout, stderr, exitCode } = await fake.run(args);
  return exitCode === 0 ? stdout : `${exitCode}: ${stdout}${stderr}`;
};
const id = (kind: string) => expect.stringMatching(new RegExp(`^${kind}_[a-z2-7]{26}\n$`));

test("fork prints a line for each child, and on request how long the VM stood still", async () => {
  const many = await fake.run(["fork", "-n", "3", "--name", "worker", "-l", "a=b", "--rm", "-v", "web"]);
  expect(many.stdout).toMatch(/^(vm_[a-z2-7]{26}\n){3}$/);
  expect(many.stderr).toBe("web stood still for 6.3 ms (its CPUs for 4.5 ms); 391KiB of it are copied into each\n");
  expect(await out("fork", "--names", "--name", "twin", "web")).toBe("twin\n");
  const [child] = JSON.parse(await out("inspect", "worker-2"));
  expect(child).toMatchObject({ labels: { a: "b" }, autoRemove: true, origin: { kind: "fork", name: "web" } });
  const json = JSON.parse(await out("fork", "--json", "twin"));
  expect(json).toMatchObject({ vmIds: [expect.any(String)], deltaBytes: 400_000, times: { vcpuStoppedMs: 4.5 } });
  for (const count of ["0", "257", "many"])
    expect(await out("fork", "-n", count, "web")).toMatch(/^125: mayfly: --number/);
  expect(await out("fork", "nobody")).toBe("125: mayfly: There is no VM nobody\n");
});

test("a VM is suspended, listed, and resumed", async () => {
  expect(await out("suspend", "worker-1", "nobody")).toBe("125: worker-1\nmayfly: There is no VM nobody\n");
  expect(await out("checkpoint", "--and-stop", "worker-3", "asleep")).toEqual(id("snap"));
  expect(await out("ps", "-q", "--names", "--filter", "status=suspended")).toBe("worker-1\nworker-3\n");
  expect(await out("ps")).toMatch(/worker-3/);
  expect(await out("ps")).toMatch(/ Suspended +/);
  expect(await out("snapshot", "rm", "asleep")).toMatch(/^125: mayfly: .*worker-3/);
  expect(await out("resume", "worker-1", "worker-3", "web")).toBe("worker-1\nworker-3\nweb\n");
  expect(await out("ps", "-q", "--filter", "status=suspended")).toBe("");
});

test("a checkpoint is kept, restored, and started from", async () => {
  const made = await fake.run(["checkpoint", "-v", "web", "first"]);
  expect(made.stdout).toEqual(id("snap"));
  expect(made.stderr).toMatch(/^web stood still for [\d.]+ ms \(its CPUs for 4\.5 ms\), on the disk after 31\.0 ms\n$/);
  expect(await out("checkpoint", "web", "first")).toMatch(/^125: mayfly: There is a snapshot first/);
  expect(JSON.parse(await out("checkpoint", "--json", "web"))).toMatchObject({ name: null, kind: "checkpoint" });
  expect(await out("restore", "first")).toMatch(/^125: mayfly: Cannot restore snapshot .*web runs/);
  await out("stop", "web");
  expect(await out("checkpoint", "web")).toMatch(/^125: mayfly: Cannot checkpoint VM web/);
  expect(await out("restore", "first")).toEqual(id("vm"));
  expect(await out("run", "-d", "--snapshot", "first", "-p", "8081:80")).toEqual(id("vm"));
});

describe("mayfly snapshot", () => {
  test("ls, inspect, verify, diff", async () => {
    const lines = (await out("snapshot", "ls")).trimEnd().split("\n");
    const cells = lines.map((line) => line.split(/ {2,}/));
    expect(cells[0]).toEqual(["SNAPSHOT ID", "NAME", "KIND", "VM", "MEMORY", "COPIED", "SIZE", "CREATED"]);
    const first = cells.find(([, name]) => name === "first");
    expect(first?.slice(1, -1)).toEqual(["first", "checkpoint", "web", "128MiB", "388KiB", "400KiB"]);
    const names = (await out("snapshot", "ls", "-q", "--names")).trim().split("\n");
    expect(names).toContain("first");
    expect(names).toHaveLength(2);
    expect(await out("snapshot", "ls", "-q")).toMatch(/^([a-z2-7]{16}\n){2}$/);
    expect(JSON.parse(await out("snapshot", "inspect", "first"))).toMatchObject([{ name: "first", pages: 100 }]);
    expect(await out("snapshot", "verify", "first")).toMatch(/^snap_\w+: ok\n$/);
    expect(JSON.parse(await out("--json", "snapshot", "verify", "--all"))).toMatchObject([{ ok: true }, { ok: true }]);
    for (const words of [[], ["--all", "first"]]) expect(await out("snapshot", "verify", ...words)).toMatch(/^125: /);
    const [inspected] = JSON.parse(await out("snapshot", "inspect", "first"));
    expect(inspected.lineage).toMatchObject({ parentId: expect.stringMatching(/^(vm|tpl)_/), childIds: [] });
    expect(await out("snapshot", "diff", "first", "first")).toMatch(
      /^ADDRESS +LENGTH\n0x000001000 +8KiB\n0x004000000 +4KiB\n3 pages \(12KiB\) differ from snap_\w+\n$/,
    );
    expect(await out("snapshot", "diff", "-q", "first")).toBe("3\n");
    expect(await out("snapshot", "diff", "--files", "first")).toBe("A /tmp/a\\nb\n");
    expect(await out("snapshot", "diff", "-qf", "first", "first")).toBe("1\n");
    expect(JSON.parse(await out("snapshot", "diff", "--json", "first"))).toMatchObject({ from: null, pages: 3 });
  });

  test("export, import, promote", async () => {
    expect(await out("snapshot", "export", "first", "there.mayfly")).toEqual(id("snap"));
    expect(await out("snapshot", "export", "--no-base", "first", "/full")).toBe(
      "125: mayfly: Cannot export to /full: the disk is full\n",
    );
    expect(await out("snapshot", "import", "there.mayfly", "second")).toEqual(id("snap"));
    expect(await out("snapshot", "import", "/bad")).toMatch(/^125: mayfly: Cannot import \/bad: its checksum differs/);
    expect(await out("snapshot", "promote", "first")).toEqual(id("tpl"));
  });

  test("rm and prune", async () => {
    expect(await out("snapshot", "rm", "second", "none")).toBe("125: second\nmayfly: There is no snapshot none\n");
    expect(await out("snapshot", "prune")).toMatch(/^125: .*\n +hint: mayfly snapshot prune --force/);
    expect(await out("snapshot", "prune", "--force")).toMatch(/^snap_\w+\nFreed: 400KiB\n$/);
    expect(await out("snapshot", "ls", "-q", "--names")).toBe("first\n");
    expect(await out("snapshot", "prune", "-af")).toMatch(/^snap_\w+\nFreed: 400KiB\n$/);
    expect(await out("snapshot", "ls", "-q")).toBe("");
  });
});

test("children go on where a shell has them from", async () => {
  const { stdout, exitCode } = await fake.shell("for vm in $(mayfly fork -n 2 web); do mayfly rm -f $vm; done");
  expect([stdout.trim().split("\n").length, exitCode]).toEqual([2, 0]);
});

describe("tree", () => {
  test("draws who came from whom", async () => {
    const text = await out("tree");
    expect(text).toMatch(/^NAME +KIND +STATE +AGE +SHARED +UNIQUE\nbase +template +base .* 40MiB +0B\n/);
    expect(text).toMatch(/\n├─ web +vm +running/);
    expect(text).toMatch(/\n│ {2}├─ worker-1 +vm/);
    expect(JSON.parse(await out("tree", "--json"))[0]).toMatchObject({ kind: "template", parentId: null });
  });

  const node = (name: string, parentId: string | null): TreeNode => ({
    ...{ kind: "vm", id: name, name, parentId, state: "running", createdAt: new Date(0).toISOString() },
    ...{ sharedBytes: 1 << 20, uniqueBytes: null },
  });
  const drawn = (...nodes: TreeNode[]) => treeRows(nodes, 90_000).map(([name]) => name);

  test("branches, whatever the order", () => {
    const nodes = [
      node("a1x", "a1"),
      node("a", null),
      node("a1", "a"),
      node("a2", "a"),
      node("b", null),
      node("a1y", "a1"),
    ];
    const expected = ["a", "├─ a1", "│  ├─ a1x", "│  └─ a1y", "└─ a2", "b"];
    expect(drawn(...nodes)).toEqual(expected);
    expect(drawn(node("b1", "b"), node("b", "gone"))).toEqual(["b", "└─ b1"]);
    expect(treeRows([node("a", null)], 90_000)).toEqual([["a", "vm", "running", "1 minute", "1MiB", "-"]]);
  });

  test("a thousand generations", () => {
    const chain = Array.from({ length: 1000 }, (_, index) => node(`n${index}`, index === 0 ? null : `n${index - 1}`));
    expect(treeRows(chain, 0)).toHaveLength(1000);
  });
});
