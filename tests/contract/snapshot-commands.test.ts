/** Forks, checkpoints and suspended VMs as people type them: the command line, a daemon that it starts, and VMs. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TreeNode, Vm } from "../../src/contract/api.ts";
import { describeVms, newDirectory, noteGroup, plantArtifacts, plantTemplate } from "../support/engine-host.ts";
import { Installation } from "../support/mayfly-process.ts";

const MAIN = join(import.meta.dir, "../../src/cli/main.ts");
/** Counts from 1, a line for each that it is sent; what it counts is nowhere but in its memory. */
const COUNTER = "n=0; while read -r word; do n=$((n + 1)); echo $n $word $(hostname); done";

describeVms("forks and snapshots on the command line", () => {
  let place: Installation;
  const mayfly = async (...args: string[]) => {
    const { stdout, stderr, exitCode } = await place.run(args);
    return exitCode === 0 ? stdout : `${exitCode}: ${stdout}${stderr}`;
  };
  const inspect = async (vm: string): Promise<Vm> => JSON.parse(await mayfly("inspect", vm))[0];
  /** Sends lines to the process of a VM, and leaves it. @returns as many lines of its answer. */
  const count = async (vm: string, ...words: string[]) => {
    const attached = place.spawn(["attach", vm], { stdin: "pipe" });
    try {
      if (typeof attached.stdin === "number" || attached.stdin === undefined) throw new Error("there is no input");
      attached.stdin.write(words.map((word) => `${word}\n`).join(""));
      await attached.stdin.flush();
      let text = "";
      for await (const chunk of attached.stdout.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        if (text.split("\n").length > words.length) break;
      }
      return text.trim().split("\n");
    } finally {
      attached.kill("SIGKILL");
      await attached.exited;
    }
  };

  beforeAll(async () => {
    place = new Installation(MAIN, newDirectory("cli-fork"));
    const stateDir = join(place.directory, "state");
    mkdirSync(stateDir, { mode: 0o711 });
    noteGroup(stateDir);
    await plantTemplate(stateDir);
    await plantArtifacts(stateDir);
  });

  afterAll(async () => {
    const pid: number | undefined = JSON.parse(await mayfly("version", "--json")).daemon?.pid;
    const names = (await mayfly("ps", "-aq", "--names")).split("\n").filter(Boolean);
    if (names.length > 0) await mayfly("rm", "-f", ...names);
    if (pid !== undefined) process.kill(pid, "SIGTERM");
  });

  test("children go on from where their parent is, and so does the parent", async () => {
    expect(await mayfly("run", "-d", "-i", "--name", "counter", "--", "sh", "-c", COUNTER)).toMatch(/^vm_/);
    expect(await count("counter", "a", "b")).toEqual(["1 a counter", "2 b counter"]);
    const forked = await mayfly("fork", "-n", "2", "--name", "twin", "--names", "counter");
    expect(forked).toBe("twin-1\ntwin-2\n");
    expect(await count("counter", "c")).toEqual(["3 c counter"]);
    expect(await count("twin-1", "x", "y")).toEqual(["3 x twin-1", "4 y twin-1"]);
    expect(await count("twin-2", "z")).toEqual(["3 z twin-2"]);
    expect((await inspect("twin-2")).origin).toMatchObject({ kind: "fork", name: "counter" });
  });

  test("a tree says who came from whom, and what each has to itself", async () => {
    const nodes: TreeNode[] = JSON.parse(await mayfly("tree", "--json"));
    const named = (name: string) => nodes.find((node) => node.name === name);
    expect(named("twin-1")?.parentId).toBe(named("counter")?.id ?? "");
    for (const name of ["counter", "twin-1", "twin-2"]) {
      const { sharedBytes, uniqueBytes } = named(name) ?? {};
      expect(sharedBytes).toBeGreaterThan(uniqueBytes ?? 0);
      expect(uniqueBytes).toBeGreaterThan(100_000);
    }
    expect(await mayfly("tree")).toMatch(/\n└─ counter .*\n {3}├─ twin-1 .*\n {3}└─ twin-2 /);
  });

  test("a checkpoint is gone back to, and started from", async () => {
    expect(await mayfly("checkpoint", "counter", "at-three")).toMatch(/^snap_/);
    expect(await count("counter", "d", "e")).toEqual(["4 d counter", "5 e counter"]);
    expect(await mayfly("restore", "at-three")).toMatch(/^125: mayfly: Cannot restore .*counter/);
    expect(await mayfly("run", "-d", "--name", "other", "--snapshot", "at-three")).toMatch(/^vm_/);
    expect(await count("other", "o")).toEqual(["4 o other"]);
    const uuid = "/proc/sys/kernel/random/uuid";
    expect(await mayfly("exec", "other", "--", "cat", uuid)).not.toBe(
      await mayfly("exec", "counter", "--", "cat", uuid),
    );
    const { id } = await inspect("counter");
    await mayfly("stop", "-t", "0", "counter");
    expect(await mayfly("restore", "at-three")).toBe(`${id}\n`);
    expect(await count("counter", "f")).toEqual(["4 f counter"]);
    expect(await mayfly("snapshot", "verify", "--all")).toMatch(/^snap_\w+: ok\n$/);
  });

  test("a suspended VM has no QEMU, and is back with what it knew", async () => {
    expect(await mayfly("suspend", "twin-1")).toBe("twin-1\n");
    const suspended = await inspect("twin-1");
    expect(suspended).toMatchObject({ state: "suspended", pid: null });
    expect(await mayfly("snapshot", "rm", suspended.suspendedIn ?? "")).toMatch(/^125: .*twin-1/);
    expect(await mayfly("ps")).toMatch(/ Suspended +twin-1\n/);
    expect(await mayfly("resume", "twin-1")).toBe("twin-1\n");
    expect(await count("twin-1", "w")).toEqual(["5 w twin-1"]);
    await mayfly("suspend", "twin-1");
    expect(await mayfly("exec", "twin-1", "--", "hostname")).toBe("twin-1\n");
    expect((await inspect("twin-1")).state).toBe("running");
  });

  test("what --rm forked goes when it ends", async () => {
    const [child = ""] = (await mayfly("fork", "--rm", "counter")).trim().split("\n");
    await mayfly("kill", child);
    expect(await mayfly("wait", child)).toMatch(/^(137\n|125: )/);
    expect(await mayfly("ps", "-aq", "--no-trunc")).not.toContain(child);
  });
});
