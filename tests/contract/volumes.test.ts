/** Volumes, snapshots of directories and scratch disks, as VMs see them. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CreateVmRequest, Vm, VolumeMount } from "../../src/contract/api.ts";
import { sha256File } from "../../src/sys/publish.ts";
import { runTool } from "../../src/sys/tool.ts";
import { readExt4 } from "../../src/volume/ext4.ts";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { erofsOf, rootTree } from "../support/rootfs.ts";

const MIB = 2 ** 20;

describeVms("a VM's volumes", () => {
  let vms: TestEngine;
  let rootfs: string;

  beforeAll(async () => {
    vms = await TestEngine.open({ pool: { blocked: 1, warm: 1 } });
    const tree = await rootTree();
    const content = `
      mkdir -p seeded/sub plain && chmod 2750 seeded && chown 1234:4321 seeded
      echo one > seeded/sub/one && chown 1000:1000 seeded/sub/one && chmod 0640 seeded/sub/one
      ln -s sub/one seeded/link && ln seeded/sub/one seeded/sub/two && touch -d @1000000000 seeded/sub/one
      ln -s /seeded linked && ln -s ../../seeded/./sub deep && ln -s loop loop
    `;
    await runTool(["sh", "-ec", content], { cwd: tree });
    rootfs = await erofsOf(tree);
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    await vms.poolsFull();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const named = (volume: string, target: string, readOnly = false): VolumeMount => ({
    source: { volume },
    target,
    readOnly,
  });
  const start = (request: Partial<CreateVmRequest>) => vms.start({ rootfs, ...request });
  const dataOf = (volume: string) => join(vms.stateDir, "volumes", volume, "data.ext4");
  const allocated = (volume: string) => vms.engine.getVolume(volume).allocatedBytes;
  /** Ends a VM the way it ends by itself. */
  const stop = async (vm: Vm) => {
    await vms.engine.stopVm(vm.id, 0, soon());
    await vms.remove(vm.id);
  };

  test("are made at their first use, and keep what is written by VMs that were prepared or not", async () => {
    const volumes = [named("kept", "/srv/kept")];
    const paths: (string | null)[] = [];
    for (const [round, pool] of [true, false, true].entries()) {
      if (pool) await vms.poolsFull();
      const vm = await start({ volumes, pool });
      paths.push(vm.clone.path);
      await vms.shell(vm.id, `echo ${round} >> /srv/kept/rounds`);
      expect(await vms.shell(vm.id, "cat /srv/kept/rounds")).toBe(["0", "1", "2"].slice(0, round + 1).join("\n"));
      expect(vms.engine.getVolume("kept").vmId).toBe(vm.id);
      await stop(vm);
      expect(readExt4(dataOf("kept")).isClean).toBe(true);
    }
    expect(paths).toEqual(["warm", "image", "warm"]);
    expect(vms.engine.getVolume("kept")).toMatchObject({ sizeBytes: 10 * 2 ** 30, vmId: null });
    expect(allocated("kept")).toBeLessThan(16 * MIB);
  });

  test("that are read-only can be read, and their files do not change", async () => {
    await vms.engine.createVolume({ name: "shelf", sizeBytes: 32 * MIB });
    const first = await start({ volumes: [named("shelf", "/shelf")] });
    await vms.shell(first.id, "echo book > /shelf/book");
    await stop(first);
    const digest = await sha256File(dataOf("shelf"));
    const reader = await start({ volumes: [named("shelf", "/shelf", true)] });
    expect(
      await vms.shell(reader.id, "cat /shelf/book; touch /shelf/x 2>&1 || mount | grep -c ' /shelf .*(ro,'"),
    ).toMatch(/^book\n.*Read-only file system\n1$/);
    expect(statSync(dataOf("shelf")).mode & 0o777).toBe(0o400);
    await stop(reader);
    expect(await sha256File(dataOf("shelf"))).toBe(digest);
    expect([statSync(dataOf("shelf")).uid, statSync(dataOf("shelf")).mode & 0o777]).toEqual([0, 0o600]);
  });

  test("belong to one VM at a time, which whoever else asks is told", async () => {
    const owner = await start({ name: "owner", volumes: [named("single", "/data")] });
    for (const readOnly of [false, true]) {
      const refused = await rejection(start({ volumes: [named("single", "/data", readOnly)] }));
      expect(refused).toMatchObject({ code: "resource_in_use", message: expect.stringContaining("VM owner (vm_") });
    }
    const attempts = [() => vms.engine.removeVolume("single"), () => vms.engine.resizeVolume("single", 20 * 2 ** 30)];
    for (const attempt of attempts) {
      expect((await rejection(attempt())).message).toContain("VM owner (vm_");
    }
    expect(await vms.shell(owner.id, "echo mine > /data/mine; cat /data/mine")).toBe("mine");
    await vms.remove(owner.id);
    const next = await start({ volumes: [named("single", "/data")] });
    expect(await vms.shell(next.id, "ls /data")).toBe("mine");
    await vms.remove(next.id);
    await vms.engine.removeVolume("single");
    expect((await rejection(vms.engine.removeVolume("single"))).code).toBe("volume_not_found");
  });

  test("of a VM whose command has just ended are waited for, by the next VM and by removal", async () => {
    const volumes = [named("relay", "/data")];
    for (const word of ["one", "two", "three"]) {
      const output = new Output();
      const command = ["sh", "-c", `echo ${word} >> /data/words; cat /data/words`];
      const request = { rootfs, volumes, command, autoRemove: true };
      const { process } = await vms.engine.createVm(request, { deadline: soon(), sink: output });
      expect((await process?.exited)?.exitCode).toBe(0);
      expect(output.stdout.split("\n")).toContain(word);
      if (word === "three") expect(output.stdout).toBe("one\ntwo\nthree\n");
    }
    await vms.engine.removeVolume("relay");
  });

  test("are the VM's still when the daemon is started again", async () => {
    const vm = await start({ name: "stays", volumes: [named("lasting", "/data"), named("other", "/other", true)] });
    await vms.shell(vm.id, "echo before > /data/words; sync");
    vms = await vms.reopen({ pool: { blocked: 1, warm: 1 } });
    expect(vms.engine.getVolume("lasting").vmId).toBe(vm.id);
    expect(statSync(dataOf("lasting")).uid).not.toBe(0);
    for (const volume of ["lasting", "other"]) {
      expect((await rejection(start({ volumes: [named(volume, "/data")] }))).code).toBe("resource_in_use");
    }
    expect(await vms.shell(vm.id, "echo after >> /data/words; cat /data/words")).toBe("before\nafter");
    await stop(vm);
    expect(statSync(dataOf("lasting")).uid).toBe(0);
    const next = await start({ volumes: [named("lasting", "/data")] });
    expect(await vms.shell(next.id, "cat /data/words")).toBe("before\nafter");
  });

  test("begin with what the image has there, once", async () => {
    const look =
      "cd /v; stat -c '%n %a %u:%g %Y' . sub/one | sed 's/ [0-9]*$//;t'; stat -c %Y sub/one; readlink link; stat -c %h sub/two";
    const vm = await start({ volumes: [named("seed", "/seeded")] });
    const seen = await vms.shell(vm.id, look.replace("/v", "/seeded"));
    expect(seen).toBe(". 2750 1234:4321\nsub/one 640 1000:1000\n1000000000\nsub/one\n2");
    expect(await vms.shell(vm.id, "ls -a /seeded")).toBe(".\n..\nlink\nsub");
    await vms.shell(vm.id, "rm -r /seeded/sub");
    await stop(vm);
    const again = await start({ volumes: [named("seed", "/seeded")] });
    expect(await vms.shell(again.id, "ls /seeded")).toBe("link");
    await stop(again);
    const elsewhere: VolumeMount[] = [
      named("seed-link", "/linked"),
      named("seed-deep", "/deep"),
      named("seed-none", "/new/place"),
    ];
    const others = await start({ volumes: elsewhere });
    expect(await vms.shell(others.id, "ls /linked /deep /new/place")).toBe(
      "/deep:\none\ntwo\n\n/linked:\nlink\nsub\n\n/new/place:",
    );
  });

  test("grow: their file systems do so when they are mounted next", async () => {
    await vms.engine.createVolume({ name: "growing", sizeBytes: 64 * MIB });
    const size = "df -m /data | tail -1 | tr -s ' ' | cut -d' ' -f2";
    const small = await start({ volumes: [named("growing", "/data")] });
    expect(Number(await vms.shell(small.id, `echo word > /data/word; ${size}`))).toBeLessThan(64);
    await stop(small);
    expect((await rejection(vms.engine.resizeVolume("growing", 32 * MIB))).message).toContain("can only grow");
    expect((await vms.engine.resizeVolume("growing", 3 * 2 ** 30)).sizeBytes).toBe(3 * 2 ** 30);
    for (const pool of [false, true]) {
      const large = await start({ volumes: [named("growing", "/data")], pool });
      expect(Number(await vms.shell(large.id, size))).toBeGreaterThan(2800);
      expect(await vms.shell(large.id, "cat /data/word")).toBe("word");
      await stop(large);
    }
    expect(readExt4(dataOf("growing"))).toEqual({ isClean: true, sizeBytes: 3 * 2 ** 30 });
    await runTool(["e2fsck", "-fn", dataOf("growing")]);
  });

  test("give back to the host what was removed in them, when the VM ends", async () => {
    const volumes = [named("trimmed", "/data")];
    const vm = await start({ volumes });
    const before = allocated("trimmed");
    await vms.shell(vm.id, "busybox dd if=/dev/zero of=/data/large bs=1M count=40 2>&1; sync");
    expect(allocated("trimmed") - before).toBeGreaterThan(38 * MIB);
    await vms.shell(vm.id, "rm /data/large; sync");
    await stop(vm);
    expect(allocated("trimmed") - before).toBeLessThan(4 * MIB);
  });

  test("are mended when a VM did not end cleanly", async () => {
    const volumes = [named("unclean", "/data")];
    const vm = await start({ volumes });
    await vms.shell(vm.id, "echo safe > /data/safe; sync; echo lost > /data/lost");
    process.kill(vm.pid ?? 0, "SIGKILL");
    await vms.engine.waitVm(vm.id, AbortSignal.timeout(10_000));
    await vms.remove(vm.id);
    expect(readExt4(dataOf("unclean")).isClean).toBe(false);
    const reader = await start({ volumes: [named("unclean", "/data", true)] });
    expect(await vms.shell(reader.id, "cat /data/safe")).toBe("safe");
    expect(readExt4(dataOf("unclean")).isClean).toBe(true);
    await runTool(["e2fsck", "-fn", dataOf("unclean")]);
  });

  test("that nobody named go with a VM that removes itself, and else when they are pruned", async () => {
    const mount = (volume: string): VolumeMount => ({ ...named(volume, "/cache"), anonymous: true });
    const brief = await start({ volumes: [mount("brief")], autoRemove: true });
    expect(vms.engine.getVolume("brief")).toMatchObject({ anonymous: true, vmId: brief.id });
    await stop(brief).catch(() => undefined);
    expect((await rejection(Promise.resolve().then(() => vms.engine.getVolume("brief")))).code).toBe(
      "volume_not_found",
    );
    const kept = await start({ volumes: [mount("kept-unnamed"), named("kept-named", "/data")] });
    expect((await vms.engine.pruneVolumes({ all: true })).removed).not.toContain("kept-unnamed");
    await vms.remove(kept.id);
    expect((await vms.engine.pruneVolumes({ all: false })).removed).toEqual(["kept-unnamed"]);
    expect((await vms.engine.pruneVolumes({ all: true })).removed).toContain("kept-named");
  });

  test("are refused where there is no slot or no sense", async () => {
    const many = ["a", "b", "c", "d"].map((name) => named(name, `/${name}`));
    expect((await rejection(start({ volumes: many }))).code).toBe("limit_reached");
    const twice = [named("twice", "/a"), named("twice", "/b")];
    expect((await rejection(start({ volumes: twice }))).message).toContain("twice in one VM");
    expect(vms.engine.listVolumes().filter(({ vmId }) => vmId !== null)).toEqual([]);
  });
});

describeVms("a directory of the host", () => {
  let vms: TestEngine;
  let rootfs: string;
  let directory: string;

  beforeAll(async () => {
    vms = await TestEngine.open();
    rootfs = await erofsOf(await rootTree());
    directory = newDirectory("shared");
    writeFileSync(join(directory, "page"), "first\n");
    // Older than what may change again without a sign.
    const script =
      "mkdir sub; echo own > sub/own; chown -R 1000:2000 sub; chmod 0600 sub/own; ln -s sub/own link; mkfifo fifo; mknod null c 1 3";
    await runTool(["sh", "-ec", script], { cwd: directory });
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    await vms.poolsFull();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const start = (source: string, target = "/shared") =>
    vms.start({ rootfs, volumes: [{ source: { directory: source }, target, readOnly: true }] });
  const snapshots = () => readdirSync(join(vms.stateDir, "directories"));

  test("is seen as it was when the VM was started, with its owners", async () => {
    const vm = await start(directory);
    expect(await vms.shell(vm.id, "cd /shared; stat -c '%n %a %u:%g %F' sub sub/own fifo null; cat link")).toBe(
      "sub 755 1000:2000 directory\nsub/own 600 1000:2000 regular file\nfifo 644 0:0 fifo\nnull 644 0:0 character special file\nown",
    );
    writeFileSync(join(directory, "page"), "second\n");
    expect(await vms.shell(vm.id, "cat /shared/page")).toBe("first");
    expect(
      await vms.shell(vm.id, "(echo x > /shared/page) 2>&1 || echo no; cat /shared/null 2>&1 || echo no device"),
    ).toMatch(/Read-only file system\nno\n.*Permission denied\nno device$/);
    const next = await start(directory);
    expect(await vms.shell(next.id, "cat /shared/page")).toBe("second");
  });

  test("that has not changed is packed once, and what was packed is for VMs alone", async () => {
    // Its own root file system was made long enough ago to count as settled, if this machine is slow; a system directory always is.
    const system = "/etc/skel";
    const one = await start(system);
    const [key = "", ...others] = snapshots();
    expect(others).toEqual([]);
    const image = join(vms.stateDir, "directories", key, "rootfs.erofs");
    expect(statSync(image).mode & 0o777).toBe(0o440);
    const { ino } = statSync(image);
    const two = await start(system);
    expect(snapshots()).toEqual([key]);
    expect(statSync(image).ino).toBe(ino);
    await vms.remove(one.id);
    expect(await vms.shell(two.id, "ls -a /shared | wc -l")).not.toBe("0");
    vms = await vms.reopen();
    expect((await vms.engine.prune(soon())).removed).not.toContain(key);
    await vms.remove(two.id);
    expect((await vms.engine.prune(soon())).removed).toContain(key);
    expect(snapshots()).toEqual([]);
  });

  test("must be one, and no place of Mayfly's own or with other file systems in it", async () => {
    const refused = async (path: string) => (await rejection(start(path))).message;
    expect(await refused("/no/such/place")).toContain("there is no such directory");
    expect(await refused("/etc/passwd")).toContain("it is no directory");
    expect(await refused(vms.stateDir)).toContain("keeps its state in it");
    expect(await refused("/")).toContain("keeps its state in it");
    expect(await refused("/dev")).toMatch(/another file system/);
    expect(snapshots()).toEqual([]);
  });
});

describeVms("a scratch disk", () => {
  let vms: TestEngine;
  let rootfs: string;

  beforeAll(async () => {
    vms = await TestEngine.open({ pool: { blocked: 0, warm: 1 } });
    rootfs = await erofsOf(await rootTree());
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());

  for (const pool of [true, false]) {
    test(`takes what is written to the root, more than there is memory; ${pool ? "prepared" : "not prepared"}`, async () => {
      const vm = await vms.start({ rootfs, diskBytes: 512 * MIB, pool });
      expect(vm.clone.path).toBe(pool ? "warm" : "image");
      const script =
        "busybox dd if=/dev/zero of=/srv/large bs=1M count=180 2>/dev/null; sync; stat -c %s /srv/large; df -m / | tail -1 | tr -s ' ' | cut -d' ' -f2";
      const [written, mebibytes] = (await vms.shell(vm.id, script)).split("\n").map(Number);
      expect(written).toBe(180 * MIB);
      expect(mebibytes).toBeGreaterThan(450);
      expect(mebibytes).toBeLessThanOrEqual(512);
      const disk = join(vms.stateDir, "vms", vm.id, "disks", "scratch.qcow2");
      expect(statSync(disk).blocks * 512).toBeGreaterThan(180 * MIB);
      await vms.remove(vm.id);
      expect(existsSync(disk)).toBe(false);
      await vms.poolsFull();
    });
  }

  test("is empty for each VM, and its own", async () => {
    const [one, two] = [
      await vms.start({ rootfs, diskBytes: 64 * MIB }),
      await vms.start({ rootfs, diskBytes: 64 * MIB }),
    ];
    await vms.shell(one.id, "echo one > /srv/mine; sync");
    expect(await vms.shell(two.id, "ls /srv")).toBe("");
    expect(await vms.shell(one.id, "busybox dd if=/dev/zero of=/srv/large bs=1M count=100 2>&1 || true")).toContain(
      "No space left on device",
    );
    for (const vm of [one, two]) await vms.remove(vm.id);
    expect((await vms.engine.prune(soon())).removed.length).toBeGreaterThan(0);
    expect((await vms.engine.diskUsage()).directories.bytes).toBe(0);
  });
});
