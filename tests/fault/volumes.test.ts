/** Volumes when things go wrong: killed processes, full disks, changing directories. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { runTool } from "../../src/sys/tool.ts";
import { DirectoryStore } from "../../src/volume/directories.ts";
import { readExt4 } from "../../src/volume/ext4.ts";
import { ScratchStore } from "../../src/volume/scratch.ts";
import { VolumeStore } from "../../src/volume/store.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, newDirectory, processesMentioning } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { erofsOf, rootTree } from "../support/rootfs.ts";

const MIB = 2 ** 20;
const VM = { id: "vm_1", name: "one" };

const mayMount = Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;
const testMounted = (name: string, body: () => Promise<void>) =>
  mayMount ? test(name, body) : test.skip(`${name} (this process may not mount)`, body);

describeVms("volumes and snapshots", () => {
  let mount: string | undefined;
  let vms: TestEngine | undefined;

  beforeEach(() => {
    vms = mount = undefined;
  });
  afterEach(async () => {
    if (vms !== undefined) {
      await vms.removeAll();
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
      await vms[Symbol.asyncDispose]();
    }
    if (mount !== undefined) Bun.spawnSync(["umount", "-l", mount]);
  });

  /** A small file system of its own. */
  const small = (mebibytes: number) => {
    const path = newDirectory("small");
    const command = ["mount", "-t", "tmpfs", "-o", `size=${mebibytes}m,mode=711`, "tmpfs", path];
    const { exitCode, stderr } = Bun.spawnSync(command, { stderr: "pipe" });
    if (exitCode !== 0) throw new Error(stderr.toString());
    mount = path;
    return path;
  };
  /** Takes all the space but so many bytes. @returns a function that gives it back. */
  const fill = (path: string, leaveBytes: number) => {
    const filler = join(path, "filler");
    const { bavail, bsize } = statfsSync(path);
    writeFileSync(filler, Buffer.alloc(Math.max(0, bavail * bsize - leaveBytes)));
    return () => rmSync(filler);
  };
  const openStores = async (stateDir: string) => {
    const volumes = new VolumeStore(stateDir, () => 970_000);
    const directories = new DirectoryStore(stateDir, 0);
    const scratch = new ScratchStore(stateDir);
    const problems = await volumes.load();
    volumes.takeBack();
    await directories.load();
    await scratch.load();
    return { volumes, directories, scratch, problems };
  };
  /** Names that begin with a dot are what an interrupted step would leave. */
  const unfinished = (stateDir: string) =>
    ["volumes", "directories", "scratch"].flatMap((name) =>
      readdirSync(join(stateDir, name)).filter((entry) => entry.startsWith(".")),
    );

  test("are whole or not there when the process that makes them is killed, at any moment", async () => {
    const stateDir = newDirectory("killed");
    const directory = newDirectory("source");
    for (let index = 0; index < 20; index++)
      writeFileSync(join(directory, String(index)), Buffer.alloc(50_000, `${index}`));
    const promised = new Map<string, "there" | "gone">();
    for (let round = 0; round < 12; round++) {
      const worker = Bun.spawn([process.execPath, "tests/support/volume-worker.ts", stateDir, directory], {
        cwd: join(import.meta.dir, "../.."),
        stdio: ["ignore", "pipe", "inherit"],
      });
      let announced = 0;
      for await (const line of readLines(worker.stdout)) {
        const [step = "", name = ""] = line.split(" ");
        if (step === "made") promised.set(name, "there");
        if (step === "remove") promised.delete(name);
        if (step === "removed") promised.set(name, "gone");
        announced += 1;
        // Some milliseconds into a step; which, chance decides.
        if (announced === 4 + round * 2) setTimeout(() => worker.kill("SIGKILL"), Math.random() * 25);
      }
      await worker.exited;
      await gone(stateDir);
      const { volumes, problems } = await openStores(stateDir);
      expect(problems).toEqual([]);
      expect(unfinished(stateDir)).toEqual([]);
      for (const [name, state] of promised) expect(`${name} ${volumes.has(name)}`).toBe(`${name} ${state === "there"}`);
      for (const { name, sizeBytes } of volumes.list()) {
        expect([64 * MIB, 96 * MIB]).toContain(sizeBytes);
        expect((await volumes.ready(name)).path).toBe(volumes.dataPath(name));
        await runTool(["e2fsck", "-fn", volumes.dataPath(name)]);
      }
      for (const key of readdirSync(join(stateDir, "directories"))) {
        await runTool(["fsck.erofs", join(stateDir, "directories", key, "rootfs.erofs")]);
      }
    }
    expect(promised.size).toBeGreaterThan(10);
  });

  testMounted("of a full disk are not made, and nothing is left of them", async () => {
    const stateDir = small(24);
    const { volumes, directories, scratch } = await openStores(stateDir);
    const directory = newDirectory("source");
    writeFileSync(join(directory, "large"), Buffer.alloc(4 * MIB, "incompressible"));
    const giveBack = fill(stateDir, 128 * 1024);
    expect((await rejection(volumes.create({ name: "data" }))).code).toBe("disk_full");
    expect((await rejection(scratch.make(join(stateDir, "overlay"), 2 ** 34, VM))).code).toBe("disk_full");
    expect((await rejection(directories.snapshot(directory, VM))).code).toBe("disk_full");
    expect(unfinished(stateDir)).toEqual([]);
    expect(volumes.list()).toEqual([]);
    giveBack();
    expect((await volumes.create({ name: "data", sizeBytes: 64 * MIB })).name).toBe("data");
    fill(stateDir, 0);
    expect((await volumes.resize("data", 128 * MIB)).sizeBytes).toBe(128 * MIB);
    expect((await rejection(volumes.markUsed("data"))).code).toBe("disk_full");
    expect((await volumes.ready("data")).isNew).toBe(true);
  });

  testMounted(
    "on a disk that fills up give the guest an error, not the VM a standstill; later all is mended",
    async () => {
      const stateDir = newDirectory("state");
      mkdirSync(join(stateDir, "volumes"), { mode: 0o711 });
      const place = small(96);
      Bun.spawnSync(["mount", "--bind", place, join(stateDir, "volumes")]);
      try {
        vms = await TestEngine.open({ stateDir });
        const rootfs = await erofsOf(await rootTree());
        const volumes = [{ source: { volume: "data" }, target: "/data" }];
        const vm = await vms.start({ rootfs, volumes });
        expect(await vms.shell(vm.id, "echo safe > /data/safe; sync; cat /data/safe")).toBe("safe");
        const giveBack = fill(place, 8 * MIB);
        const write = "busybox dd if=/dev/zero of=/data/large bs=1M count=64 conv=fsync 2>&1 || true";
        expect(await vms.shell(vm.id, write)).toMatch(/Input\/output error|No space left|Read-only/);
        expect(await vms.shell(vm.id, "echo answers; cat /data/safe")).toBe("answers\nsafe");
        await vms.remove(vm.id);
        giveBack();
        const again = await vms.start({ rootfs, volumes });
        expect(await vms.shell(again.id, "cat /data/safe; echo more > /data/more; sync; cat /data/more")).toBe(
          "safe\nmore",
        );
        await vms.remove(again.id);
        await runTool(["e2fsck", "-fn", join(stateDir, "volumes/data/data.ext4")]);
      } finally {
        Bun.spawnSync(["umount", "-l", join(stateDir, "volumes")]);
      }
    },
  );

  test("that are damaged keep a VM from starting, and are left as they are", async () => {
    vms = await TestEngine.open();
    const rootfs = await erofsOf(await rootTree());
    await vms.engine.createVolume({ name: "torn", sizeBytes: 32 * MIB });
    await vms.engine.createVolume({ name: "fine", sizeBytes: 32 * MIB });
    const path = join(vms.stateDir, "volumes/torn/data.ext4");
    for (const command of ["set_super_value state 2", "clri <2>"])
      await runTool(["debugfs", "-w", "-R", command, path]);
    const volumes = ["fine", "torn"].map((volume) => ({ source: { volume }, target: `/${volume}` }));
    expect((await rejection(vms.start({ rootfs, volumes, diskBytes: 32 * MIB }))).code).toBe("store_corrupt");
    expect(vms.engine.listVms()).toEqual([]);
    expect(vms.engine.listVolumes().map(({ name, vmId }) => [name, vmId])).toEqual([
      ["fine", null],
      ["torn", null],
    ]);
    expect([statSync(path).uid, readExt4(path).isClean]).toEqual([0, false]);
    const vm = await vms.start({ rootfs, volumes: volumes.slice(0, 1) });
    await vms.remove(vm.id);
  });

  test("of a directory that changes all the time are given up", async () => {
    const { directories } = await openStores(newDirectory("state"));
    const directory = newDirectory("restless");
    for (let index = 0; index < 300; index++)
      writeFileSync(join(directory, String(index)), Buffer.alloc(20_000, `${index}`));
    const writer = setInterval(() => appendFileSync(join(directory, "restless"), "x"), 1);
    try {
      const error = await soon().race(rejection(directories.snapshot(directory, VM)), "the refusal");
      expect(error.message).toContain("it changed each of the 3 times");
    } finally {
      clearInterval(writer);
    }
    expect(await directories.usage()).toMatchObject({ count: 0 });
    const { path } = await directories.snapshot(directory, VM);
    await runTool(["fsck.erofs", path]);
  });
});

describeVms("a daemon that is killed", () => {
  test("leaves volumes, directories and scratch disks to the VMs that have them, and the next one knows", async () => {
    await using daemon = await TestDaemon.start();
    const rootfs = await erofsOf(await rootTree());
    const directory = newDirectory("source");
    writeFileSync(join(directory, "word"), "from the host\n");
    const request = {
      rootfs,
      diskBytes: 64 * MIB,
      volumes: [
        { source: { volume: "data" }, target: "/data" },
        { source: { directory }, target: "/host", readOnly: true },
      ],
    };
    const count = "i=0; while :; do i=$((i+1)); echo $i >> /data/log; sync; done";
    const vm = await daemon.client.vms.create({ ...request, command: ["sh", "-c", count] });
    const shell = async (id: string, script: string) => {
      const { exitCode, stdout } = await daemon.client.vms.execToEnd(id, { command: ["sh", "-c", script] });
      return `${exitCode} ${Buffer.from(stdout, "base64")}`.trim();
    };
    expect(await shell(vm.id, "while [ $(wc -l < /data/log) -lt 5 ]; do :; done; echo x > /srv/x")).toBe("0");
    await daemon.kill();
    await daemon.begin();
    expect((await daemon.client.volumes.get("data")).vmId).toBe(vm.id);
    for (const attempt of [() => daemon.client.vms.create(request), () => daemon.client.volumes.remove("data")]) {
      expect((await rejection(attempt())).message).toContain(`VM ${vm.name} (${vm.id}) has it`);
    }
    expect((await daemon.client.system.prune()).removed).toEqual([]);
    expect(await shell(vm.id, "cat /host/word /srv/x")).toBe("0 from the host\nx");
    await daemon.client.vms.remove(vm.id, { force: true });
    const next = await daemon.client.vms.create(request);
    const lines = (await shell(next.id, "cat /data/log")).slice(2).split("\n").map(Number);
    expect(lines.length).toBeGreaterThan(5);
    expect(lines).toEqual(lines.map((_, index) => index + 1));

    // Its QEMU ends while nobody is there to see it.
    const data = join(daemon.stateDir, "volumes/data/data.ext4");
    expect(await shell(next.id, "echo safe > /data/safe; sync")).toBe("0");
    await daemon.kill();
    process.kill(next.pid ?? 0, "SIGKILL");
    await gone(`${daemon.stateDir}/`);
    await daemon.begin();
    expect((await daemon.client.volumes.get("data")).vmId).toBeNull();
    expect(statSync(data).uid).toBe(0);
    expect(existsSync(join(daemon.stateDir, "vms", next.id, "disks"))).toBe(false);
    expect((await rejection(daemon.client.volumes.remove("data"))).message).toContain("was started with it");
    await daemon.client.vms.remove(next.id);
    const last = await daemon.client.vms.create(request);
    expect(await shell(last.id, "cat /data/safe")).toBe("0 safe");
    await daemon.client.vms.remove(last.id, { force: true });
    await daemon.client.volumes.remove("data");
    expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
  });
});

/** Lines of a stream to its end. */
async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk)).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** Resolves when no program works in a directory any more: what a killed process has started ends with it, a moment later. */
async function gone(directory: string): Promise<void> {
  const deadline = soon(5_000);
  while (processesMentioning(directory).size > 0) {
    if (deadline.remainingMs === 0) throw new Error(`still there: ${[...processesMentioning(directory).values()]}`);
    await Bun.sleep(5);
  }
}
