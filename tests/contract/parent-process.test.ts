/** Copies of a process: they go on from where it stands, as users of their own, with what they were given; nothing of them or of it is left. */
import { expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { buryCopy, ParentProcess } from "../../src/sys/parent-process.ts";
import { identifyProcess, type ProcessIdentity } from "../../src/sys/process.ts";
import { runTool } from "../../src/sys/tool.ts";
import { soon } from "../support/engine.ts";
import { describeVms, hostArtifacts } from "../support/engine-host.ts";
import { rejection } from "../support/fake-peer.ts";

/** Reads a line, which only its copies will get, and says who has. */
const READER = 'read -r line; echo "$line $(id -u)"; exit 3';

const USERS = { first: 4242, count: 2 };

/** A shell that waits for a line on a named pipe, and what is needed to talk to its copies. */
class Waiting implements AsyncDisposable {
  readonly directory = mkdtempSync("/var/tmp/mayfly-copies-");
  readonly lines: number;
  readonly output: number;
  readonly #child: Bun.Subprocess;
  readonly #input: number;

  private constructor(stderr: "ignore" | "pipe") {
    const path = join(this.directory, "lines");
    Bun.spawnSync(["mkfifo", path]);
    this.lines = openSync(path, "r+");
    this.#input = openSync(path, "r");
    this.output = openSync(join(this.directory, "output"), "a");
    const stdio = ["ignore", "ignore", stderr] as const;
    this.#child = Bun.spawn(["sh", "-c", READER], { stdio: [this.#input, stdio[1], stdio[2]] });
  }

  /** Starts one, and waits until it waits. */
  static async start(stderr: "ignore" | "pipe" = "ignore"): Promise<Waiting> {
    const waiting = new Waiting(stderr);
    const deadline = soon();
    // Of the pipe that it reads from.
    while (!readFileSync(`/proc/${waiting.pid}/syscall`, "latin1").startsWith("0 0x0 "))
      await deadline.race(Bun.sleep(2), "a shell that waits");
    return waiting;
  }

  get pid(): number {
    return this.#child.pid;
  }

  get identity(): ProcessIdentity {
    const identity = identifyProcess(this.pid);
    if (identity === undefined) throw new Error("it has ended");
    return identity;
  }

  /** Resolves with the signal that has ended it. */
  async ended(): Promise<unknown> {
    await soon().race(this.#child.exited, "the end of the original");
    return this.#child.signalCode;
  }

  said(): string[] {
    return readFileSync(join(this.directory, "output"), "utf8").split("\n").filter(Boolean).toSorted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    for (const fd of [this.lines, this.#input, this.output]) closeSync(fd);
    rmSync(this.directory, { recursive: true });
  }
}

async function stopped(process: ProcessIdentity): Promise<ParentProcess> {
  const parent = ParentProcess.stop(hostArtifacts().launcher.path, process, USERS);
  await parent.ready();
  return parent;
}

/** How a copy has ended, once it has. */
async function endOf(pid: number) {
  const deadline = soon();
  for (;;) {
    const end = buryCopy(pid);
    if (end !== undefined) return end;
    await deadline.race(Bun.sleep(2), `the end of copy ${pid}`);
  }
}

describeVms("a process that was made a parent", () => {
  test("never goes on; each copy does, as its own user, with what it was given, in its control groups", async () => {
    await using original = await Waiting.start();
    const groups = join(original.directory, "tasks");
    writeFileSync(groups, "");
    const group = openSync(groups, "a");
    const parent = await stopped(original.identity);
    const copy = (uid: number) => parent.copy({ uid, descriptors: new Map([[1, original.output]]), groups: [group] });
    const copies = await Promise.all([4242, 4243].map(copy));
    closeSync(group);
    expect(new Set([original.pid, ...copies]).size).toBe(3);
    const [status = "", other = ""] = copies.map((pid) => readFileSync(`/proc/${pid}/status`, "latin1"));
    expect(/^Uid:\t(.*)$/m.exec(status)?.[1]).toBe("4242\t4242\t4242\t4242");
    expect(/^Uid:\t(.*)$/m.exec(other)?.[1]).toBe("4243\t4243\t4243\t4243");
    expect(/^CapEff:\t(.*)$/m.exec(status)?.[1]).toBe("0000000000000000");
    expect(/^CapPrm:\t(.*)$/m.exec(status)?.[1]).toBe("0000000000000000");
    expect(/^TracerPid:\t(.*)$/m.exec(status)?.[1]).toBe("0");
    expect(readFileSync(groups, "utf8")).toBe("00");
    writeSync(original.lines, "first\nsecond\n");
    for (const copy of copies) expect(await endOf(copy)).toEqual({ exitCode: 3, signal: null });
    const said = original.said().map((line) => line.split(" "));
    expect(said.map(([line]) => line)).toEqual(["first", "second"]);
    expect(said.map(([, user]) => user).toSorted()).toEqual(["4242", "4243"]);
    parent[Symbol.dispose]();
    expect(await original.ended()).toBe("SIGKILL");
  });

  test("ends with the program that keeps it, however that ends; its copies go on", async () => {
    await using original = await Waiting.start();
    const parent = await stopped(original.identity);
    const copy = await parent.copy({ uid: 4242, descriptors: new Map([[1, original.output]]), groups: [] });
    const keeper = Number(/^TracerPid:\t(\d+)$/m.exec(readFileSync(`/proc/${original.pid}/status`, "latin1"))?.[1]);
    process.kill(keeper, "SIGKILL");
    expect(await original.ended()).toBe("SIGKILL");
    const refused = await rejection(parent.copy({ uid: 4242, descriptors: new Map(), groups: [] }));
    expect(refused).toMatchObject({ code: "qemu_spawn_failed" });
    expect(await rejection(parent.copy({ uid: 4242, descriptors: new Map(), groups: [] }))).toEqual(refused);
    writeSync(original.lines, "still here\n");
    expect(await endOf(copy)).toEqual({ exitCode: 3, signal: null });
    expect(original.said()).toEqual(["still here 4242"]);
  });

  test("leaves nothing of a copy that fails", async () => {
    await using original = await Waiting.start();
    using parent = await stopped(original.identity);
    // A control group's file that cannot be written.
    const group = openSync("/proc/version", "r");
    const error = await rejection(parent.copy({ uid: 4242, descriptors: new Map(), groups: [group] }));
    closeSync(group);
    expect(error).toMatchObject({ code: "qemu_spawn_failed" });
    expect(error.message).toContain("join a control group");
    expect(await original.ended()).toBe("SIGKILL");
    const { stdout } = await runTool(["ps", "--ppid", String(process.pid), "-o", "stat="], { deadlineMs: 5000 });
    expect(stdout).not.toContain("Z");
  });
});

describeVms("a process that cannot be a parent", () => {
  test("is connected to somebody, who would get what two of it say", async () => {
    await using original = await Waiting.start("pipe");
    const error = await rejection(stopped(original.identity));
    expect(error.message).toBe(
      `Cannot copy process ${original.pid}: process ${original.pid} is still connected to somebody`,
    );
    expect(await original.ended()).toBe("SIGKILL");
  });

  test("is another one than it was: that is left alone", async () => {
    await using original = await Waiting.start();
    const another = { ...original.identity, startTicks: original.identity.startTicks + 1 };
    const error = await rejection(stopped(another));
    expect(error.message).toContain(`cannot look at process ${original.pid}`);
    writeSync(original.lines, "mine\n");
    expect(await original.ended()).toBe(null);
  });
});
