/** Copies of a process: they go on from where it stands, as users of their own, with what they were given; nothing of them or of it is left. */
import { beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { buryCopy, endCopy, ParentProcess } from "../../src/sys/parent-process.ts";
import { identifyProcess, type ProcessIdentity } from "../../src/sys/process.ts";
import { runTool } from "../../src/sys/tool.ts";
import { soon } from "../support/engine.ts";
import { describeVms, hostArtifacts, newDirectory } from "../support/engine-host.ts";
import { rejection } from "../support/fake-peer.ts";

/** Reads a line, which only its copies will get, and says who has. */
const READER = 'read -r line; echo "$line $(id -u)"; exit 3';

const USERS = { first: 4242, count: 2 };

/** A program that waits for a line on a named pipe, and what is needed to talk to its copies. */
class Waiting implements AsyncDisposable {
  readonly directory = mkdtempSync("/var/tmp/mayfly-copies-");
  readonly lines: number;
  readonly output: number;
  readonly #child: Bun.Subprocess;
  readonly #input: number;

  private constructor(command: string[], tells: boolean, stderr: "ignore" | "pipe") {
    const path = join(this.directory, "lines");
    Bun.spawnSync(["mkfifo", path]);
    this.lines = openSync(path, "r+");
    this.#input = openSync(path, "r");
    this.output = openSync(join(this.directory, "output"), "a");
    this.#child = Bun.spawn(command, { stdio: [this.#input, tells ? this.output : "ignore", stderr] });
  }

  /** Starts a shell, and waits until it waits. */
  static start(stderr: "ignore" | "pipe" = "ignore"): Promise<Waiting> {
    return Waiting.#waits(new Waiting(["sh", "-c", READER], false, stderr));
  }

  /** Starts a program. */
  static run(program: string): Promise<Waiting> {
    return Waiting.#waits(new Waiting([program], true, "ignore"));
  }

  static async #waits(waiting: Waiting): Promise<Waiting> {
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
  await parent.stopped();
  return parent;
}

/** Has whoever comes first read a line, and waits until that has told. */
async function say(waiting: Waiting, line: string): Promise<void> {
  const before = waiting.said().length;
  writeSync(waiting.lines, line);
  const deadline = soon();
  while (waiting.said().length === before) await deadline.race(Bun.sleep(2), `an answer to ${line}`);
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
    // Each has an input of its own: a shell reads byte by byte, and two would share a line.
    const inputs = ["first", "second"].map((name) => {
      const path = join(original.directory, name);
      Bun.spawnSync(["mkfifo", path]);
      return openSync(path, "r+");
    });
    const copies = await Promise.all(
      inputs.map((input, index) => {
        const descriptors = new Map([input, original.output].map((fd, number) => [number, fd]));
        return parent.copy({ uid: USERS.first + index, descriptors, groups: [group] });
      }),
    );
    closeSync(group);
    expect(new Set([original.pid, ...copies]).size).toBe(3);
    const [status = "", other = ""] = copies.map((pid) => readFileSync(`/proc/${pid}/status`, "latin1"));
    expect(/^Uid:\t(.*)$/m.exec(status)?.[1]).toBe("4242\t4242\t4242\t4242");
    expect(/^Uid:\t(.*)$/m.exec(other)?.[1]).toBe("4243\t4243\t4243\t4243");
    expect(/^CapEff:\t(.*)$/m.exec(status)?.[1]).toBe("0000000000000000");
    expect(/^CapPrm:\t(.*)$/m.exec(status)?.[1]).toBe("0000000000000000");
    expect(/^TracerPid:\t(.*)$/m.exec(status)?.[1]).toBe("0");
    expect(readFileSync(groups, "utf8")).toBe("00");
    for (const [index, input] of inputs.entries()) writeSync(input, `line ${index + 1}\n`);
    for (const copy of copies) expect(await endOf(copy)).toEqual({ exitCode: 3, signal: null });
    for (const input of inputs) closeSync(input);
    expect(original.said()).toEqual(["line 1 4242", "line 2 4243"]);
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

describeVms("a process that is copied while it runs", () => {
  const directory = newDirectory("goes-on");
  const program = join(directory, "goes-on");
  const told = (line: string, connection: string, user: number) =>
    `${line}: 7 times, ${connection}, its thread counts, user ${user}`;

  beforeAll(async () => {
    chmodSync(directory, 0o755);
    const source = join(import.meta.dir, "../support/goes-on.c");
    await runTool(["gcc", "-std=c11", "-D_GNU_SOURCE", "-Os", "-pthread", "-o", program, source]);
  });

  /** A program of ours that stands still as the first copy of a process. */
  async function stemOf(process: ProcessIdentity): Promise<{ stem: ParentProcess; pid: number }> {
    const stem = ParentProcess.spare(hostArtifacts().launcher.path, USERS);
    await stem.of(process);
    return { stem, pid: await stem.take(() => undefined) };
  }

  test("goes on as it was; copies have its events, its threads, and none of its connections", async () => {
    await using original = await Waiting.run(program);
    const { stem, pid } = await stemOf(original.identity);
    const status = readFileSync(`/proc/${original.pid}/status`, "latin1");
    expect(/^TracerPid:\t(.*)$/m.exec(status)?.[1]).toBe("0");
    await say(original, "a");
    expect(await original.ended()).toBeNull();
    const copy = (uid: number, isLast: boolean) =>
      stem.copy({ uid, descriptors: new Map([[1, original.output]]), groups: [], isLast });
    const first = await copy(4242, false);
    const last = await copy(4243, true);
    expect(last).toBe(pid);
    await say(original, "b");
    await say(original, "c");
    for (const each of [first, last]) expect(await endOf(each)).toEqual({ exitCode: 0, signal: null });
    const [own, ...others] = original.said();
    expect(own).toBe(told("a", "connected", 0));
    expect(others.map((line) => line.slice(3)).toSorted()).toEqual(
      [told("b", "alone", 4242), told("c", "alone", 4243)].map((line) => line.slice(3)),
    );
  });

  test("leaves nothing of a copy that is not wanted, however that ends", async () => {
    for (const how of ["by the end of its program's input", "with its program", "by itself"] as const) {
      await using original = await Waiting.run(program);
      const { stem, pid } = await stemOf(original.identity);
      const keeper = Number(/^TracerPid:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]);
      if (how === "with its program") process.kill(keeper, "SIGKILL");
      else if (how === "by itself") process.kill(pid, "SIGKILL");
      else stem[Symbol.dispose]();
      await soon().race(stem.gone, "the end of the program");
      const deadline = soon();
      while (existsSync(`/proc/${pid}`)) await deadline.race(Bun.sleep(2), `the end of the copy ${how}`);
      if (how !== "with its program") expect(existsSync(`/proc/${keeper}`)).toBe(false);
      await say(original, "a");
      expect(original.said()).toEqual([told("a", "connected", 0)]);
    }
  });

  test("can be a copy of a copy, as deep as the kernel allows; deeper it is left alone", async () => {
    await using original = await Waiting.run(program);
    let last = original.identity;
    let depth = 0;
    let refused: Error | undefined;
    for (; refused === undefined && depth < 40; depth++) {
      const stem = ParentProcess.spare(hostArtifacts().launcher.path, USERS);
      refused = await stem.of(last).then(
        () => undefined,
        (error: Error) => error,
      );
      if (refused !== undefined) break;
      await stem.take(() => undefined);
      const descriptors = new Map([[1, original.output]]);
      const pid = await stem.copy({ uid: 4242 + (depth % 2), descriptors, groups: [], isLast: true });
      const identity = identifyProcess(pid);
      if (identity === undefined) throw new Error("a copy has ended");
      if (depth > 0) {
        endCopy(last);
        expect(existsSync(`/proc/${last.pid}`)).toBe(false);
      }
      last = identity;
    }
    expect(depth).toBe(30);
    expect(refused?.message).toContain("30 deep: the kernel allows no more");
    const status = readFileSync(`/proc/${last.pid}/status`, "latin1");
    expect(/^Uid:\t(.*)$/m.exec(status)?.[1]).toBe("4243\t4243\t4243\t4243");
    for (const set of ["CapPrm", "CapEff"]) expect(status).toContain(`${set}:\t0000000000000000`);
    await say(original, "a");
    await say(original, "b");
    expect(await endOf(last.pid)).toEqual({ exitCode: 0, signal: null });
    expect(original.said().some((line) => line.endsWith("alone, its thread counts, user 4243"))).toBe(true);
  });

  test("that is killed meanwhile is gone, and nothing is left of a copy", async () => {
    for (let round = 0; round < 20; round++) {
      await using original = await Waiting.run(program);
      const stem = ParentProcess.spare(hostArtifacts().launcher.path, USERS);
      await stem.of(original.identity);
      const taken = stem.take(() => undefined).catch((error: unknown) => error);
      if (round % 4 > 0) await Bun.sleep(round / 8);
      process.kill(original.pid, "SIGKILL");
      const outcome = await taken;
      if (typeof outcome !== "number") expect(outcome).toMatchObject({ code: "qemu_exited" });
      stem[Symbol.dispose]();
      await soon().race(stem.gone, "the end of the program");
    }
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
