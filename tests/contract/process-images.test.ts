/** Process images: what goes on from one is as what was written down, whatever that was; one that does not fit is refused, and nothing of it is left. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { chmod, open } from "node:fs/promises";
import { join } from "node:path";
import { ParentProcess } from "../../src/sys/parent-process.ts";
import { identifyProcess } from "../../src/sys/process.ts";
import { runTool } from "../../src/sys/tool.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, hostArtifacts, newDirectory } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

const UID = 4242;
const WHOLE = `memory good, data awd, 7 times, rounds up, signal 10, 2000 deep, its thread counts, user ${UID}`;
const STALE = 125;

describeVms("a process image", () => {
  const directory = newDirectory("from-image");
  const path = (name: string) => join(directory, name);
  const launcher = () => hostArtifacts().launcher.path;

  beforeAll(async () => {
    await chmod(directory, 0o755);
    const source = join(import.meta.dir, "../support/from-image.c");
    await runTool([
      "gcc",
      "-std=c11",
      "-D_GNU_SOURCE",
      "-Os",
      "-frounding-math",
      "-pthread",
      "-o",
      path("program"),
      source,
      "-lm",
    ]);
    writeFileSync(path("data"), Buffer.concat([..."abcd"].map((letter) => Buffer.alloc(4096, letter))));
    await runTool(["mkfifo", path("lines")]);
    await writeImage();
  });

  /** Starts a program that waits for a line, stops it there, and writes it down; then it is gone. */
  async function writeImage(command = [path("program"), path("data")], name = "image"): Promise<void> {
    // Not a pipe of ours: what is connected to somebody cannot be kept.
    const input = openSync(path("lines"), "r+");
    try {
      const child = Bun.spawn(command, { stdio: [input, "ignore", "ignore"] });
      const deadline = soon();
      while (!readFileSync(`/proc/${child.pid}/syscall`, "latin1").startsWith("0 0x0 "))
        await deadline.race(Bun.sleep(2), "a program that waits");
      const identity = identifyProcess(child.pid);
      if (identity === undefined) throw new Error("it has ended");
      using parent = ParentProcess.stop(launcher(), identity, { first: UID, count: 1 });
      await parent.stopped();
      await runTool(["cp", path("data"), path("memory")]);
      await using image = await open(path(name), "w+", 0o600);
      await using memory = await open(path("memory"), "r+");
      try {
        await parent.writeImage(image.fd, memory.fd, [0, 1, 2]);
      } finally {
        parent[Symbol.dispose]();
        await deadline.race(child.exited, "the end of what was written down");
      }
    } finally {
      closeSync(input);
    }
  }

  /** Goes on from the image, as the launcher does it. @returns what it said, how it ended, and its command as ps(1) has it. */
  async function goOn(byte: string) {
    const image = openSync(path("image"), "r");
    const command = [launcher(), "--uid", String(UID), "--gid", String(UID), "--image", "3"];
    const child = Bun.spawn(command, { stdio: [Buffer.from(byte), "pipe", "pipe", image] });
    try {
      const [said, error] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
      return { said: said.trim(), error: error.trim(), exitCode: await child.exited };
    } finally {
      closeSync(image);
    }
  }

  test("goes on where it stood, with its memory, threads, events, signals, rounding and stack", async () => {
    expect(await goOn("a")).toEqual({ said: `a: ${WHOLE}`, error: "", exitCode: 3 });
  });

  test("does so any number of times, and several at once", async () => {
    const ends = await Promise.all([..."bcdef"].map(goOn));
    expect(ends).toEqual([..."bcdef"].map((byte) => ({ said: `${byte}: ${WHOLE}`, error: "", exitCode: 3 })));
  });

  test("is refused when a file is another one by now, was made at another boot, or is none", async () => {
    const bytes = readFileSync(path("image"));
    const refused = async (why: RegExp) => {
      const { said, error, exitCode } = await goOn("x");
      expect({ said, exitCode }).toEqual({ said: "", exitCode: STALE });
      expect(error).toMatch(why);
    };
    utimesSync(path("memory"), 1, 1);
    await refused(/memory is another file by now/);
    await writeImage();
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
    const written = readFileSync(path("image"));
    const other = Buffer.from(written);
    other.write(
      boot.replace(/^./, (first) => (first === "0" ? "1" : "0")),
      other.indexOf(boot),
    );
    writeFileSync(path("image"), other);
    await refused(/before the host was started/);
    writeFileSync(path("image"), written);
    truncateSync(path("image"), 5000);
    await refused(/too short/);
    writeFileSync(path("image"), Buffer.alloc(bytes.length));
    await refused(/none of this launcher's/);
    await writeImage();
    expect((await goOn("g")).said).toBe(`g: ${WHOLE}`);
  });

  test("is not made of a process that has a file open for writing, which ends", async () => {
    const command = ["sh", "-c", `exec 5> ${path("open")}; read -r line`];
    const error = await rejection(writeImage(command, "other"));
    expect(error).toMatchObject({ code: "qemu_spawn_failed" });
    expect(error.message).toMatch(/has .*open open, which no two can have/);
  });
});

describeVms("VMs from a process image", () => {
  let vms: TestEngine;
  beforeAll(async () => {
    vms = await TestEngine.open({ pool: { blocked: 0, warm: 0, parent: true } });
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());

  const templateDirectory = () => join(vms.stateDir, "templates", vms.engine.listTemplates()[0]?.id ?? "");
  const images = () => readdirSync(templateDirectory()).filter((name) => name.startsWith("process-image-"));

  test("share its guest's memory, and have little to themselves", async () => {
    const vm = await vms.start({ pool: false });
    expect(vm.clone.path).toBe("image");
    const { guestUniqueMemoryBytes, sharedMemoryBytes } = await vms.engine.statsVm(vm.id, soon());
    expect(guestUniqueMemoryBytes).toBeGreaterThan(0);
    expect(guestUniqueMemoryBytes).toBeLessThan(2 << 20);
    expect(sharedMemoryBytes).toBeGreaterThan(4 << 20);
    await vms.remove(vm.id);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("are adopted by the next daemon, which goes on from the same image", async () => {
    const [image] = images();
    const vm = await vms.start({ pool: false, name: "adopted" });
    await vms.shell(vm.id, "echo kept > /tmp/file");
    vms = await vms.reopen({ pool: { blocked: 0, warm: 0, parent: true } });
    expect(await vms.shell(vm.id, "cat /tmp/file")).toBe("kept");
    expect(images()).toEqual([image ?? ""]);
    expect((await vms.run(["true"], { pool: false })).vm.clone.path).toBe("image");
    // Its parent has gone on from there as well, instead of being warmed anew.
    const copy = await vms.start();
    expect(copy.clone.path).toBe("copy");
    const mapped = readFileSync(`/proc/${copy.pid}/maps`, "latin1");
    expect(mapped).toContain(`/${image}/memory\n`);
    for (const { id } of [vm, copy]) await vms.remove(id);
  });

  test("have one that does not fit any more replaced by a start without it, and removed", async () => {
    const [image = ""] = images();
    utimesSync(join(templateDirectory(), image, "memory"), 1, 1);
    const { vm, stdout } = await vms.run(["echo", "fine"], { pool: false });
    expect({ path: vm.clone.path, stdout }).toEqual({ path: "cold", stdout: "fine\n" });
    expect(existsSync(join(templateDirectory(), image, "image"))).toBe(false);
    // Its pool warms another parent, and writes that down.
    await vms.poolsFull();
    await vms.untilImage({ pool: false });
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    vms = await vms.reopen({ pool: { blocked: 0, warm: 0, parent: true } });
    expect(images()).toHaveLength(1);
    expect(images()).not.toContain(image);
  });

  test("whose image is gone are made from the template", async () => {
    rmSync(join(templateDirectory(), images()[0] ?? "", "image"));
    expect((await vms.run(["true"], { pool: false })).vm.clone.path).toBe("cold");
  });

  test("come to be by themselves for a template that nothing is prepared of, after its first clone", async () => {
    await using other = await TestEngine.open({
      pool: { blocked: 0, warm: 0, parent: true },
      templates: [{ memoryMiB: 192, vcpus: 1 }],
    });
    const request = { memoryBytes: 192 * 2 ** 20 };
    expect((await other.run(["true"], request)).vm.clone.path).toBe("cold");
    await other.untilImage(request);
    expect(await other.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("are none where no process is to be copied", async () => {
    await using other = await TestEngine.open({ pool: { blocked: 0, warm: 1, parent: false } });
    for (let time = 0; time < 2; time++) {
      expect((await other.run(["true"], { pool: false })).vm.clone.path).toBe("cold");
    }
    expect(await other.leftBehind()).toEqual(NOTHING_LEFT);
  });
});
