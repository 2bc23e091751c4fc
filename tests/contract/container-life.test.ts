/** A container's first process and init, its end and its next one; what is left on disks and in the guest. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ContainerSpec } from "../../src/agent/requests.ts";
import { attachDisks, detachDisks } from "../../src/engine/disks.ts";
import { identityRequest, newIdentity } from "../../src/engine/identity.ts";
import type { DiskFiles } from "../../src/machine/devices/disk.ts";
import { runTool } from "../../src/sys/tool.ts";
import { ContainerGuest } from "../support/containers.ts";
import { DiskHost } from "../support/disk-clones.ts";
import { soon } from "../support/engine.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";
import { rejection } from "../support/fake-peer.ts";
import { erofsOf, rootTree } from "../support/rootfs.ts";

const SIGTERM = 15;
const SIGKILL = 9;
const EEXIST = 17;
const EINVAL = 22;
const EBUSY = 16;
const ESRCH = 3;
const MIB = 2 ** 20;
const first = { first: true };
const lines = (text: string) => text.split("\n");

describeVms("a container's life", () => {
  let host: DiskHost;
  let image: string;
  let other: string;
  let guest: ContainerGuest | undefined;

  beforeAll(async () => {
    host = await DiskHost.open();
    const tree = await rootTree();
    image = await erofsOf(tree);
    const otherTree = await rootTree();
    writeFileSync(join(otherTree, "etc/release"), "another root\n");
    other = await erofsOf(otherTree);
  });
  afterEach(async () => {
    await guest?.[Symbol.asyncDispose]();
    guest = undefined;
  });
  afterAll(() => host?.[Symbol.dispose]());

  const rootOn = (path: string): DiskFiles => ({ root: { path, format: "raw", readOnly: true } });
  const start = async (disks: DiskFiles = rootOn(image)): Promise<ContainerGuest> => {
    guest = await ContainerGuest.start(host, disks);
    return guest;
  };
  const build = async (spec: Partial<ContainerSpec> = {}): Promise<ContainerGuest> => {
    const box = await start();
    await box.agent.container({ fstype: "erofs", ...spec }, soon());
    return box;
  };
  /** The errno that a command cannot be started with. */
  const refusal = async (box: ContainerGuest, spec: object, argv = ["true"]): Promise<number | undefined> =>
    (await rejection(box.start(argv, spec).process.pid)).details.errno;

  test("ends with its first process, and goes on with the next one on the same files", async () => {
    const box = await build();
    const shell = box.start(["sh"], { ...first, stdin: true });
    await shell.process.pid;
    const sleeper = box.start(["sleep", "1000"]);
    const deaf = box.start(["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done"]);
    await deaf.has("deaf");
    expect(await refusal(box, first)).toBe(EEXIST);
    await shell.process.stdin.write(Buffer.from("echo kept >/kept; exit 7\n"));
    expect((await shell.ended()).end).toBe(7);
    expect((await sleeper.ended()).end).toBe(`signal ${SIGKILL}`);
    expect((await deaf.ended()).end).toBe(`signal ${SIGKILL}`);
    expect(await refusal(box, {})).toBe(ESRCH);
    expect(await refusal(box, { hook: true })).toBe(ESRCH);
    const again = await box.run("cat /kept; echo $$; cd /proc; echo [0-9]*; grep -c ' /proc proc' /proc/mounts", first);
    expect(lines(again.stdout)).toEqual(["kept", "1", "1", "1", ""]);
    expect(await box.shell("echo outside goes on", { outside: true })).toBe("outside goes on");
  });

  test("leaves zombies and signals to its first process, unless that is behind an init", async () => {
    const box = await build();
    const orphan = "sh -c '(sleep 0.05; exit 3) & echo $!'";
    const zombies = "ps -o stat,comm | grep -c '^Z'";
    const careless = box.start(["sleep", "1000"], first);
    await careless.process.pid;
    const pid = await box.shell(orphan);
    expect(await box.shell(`while ! grep -q 'State:.Z' /proc/${pid}/status; do :; done; ${zombies}`)).toBe("1");
    await careless.process.signal(SIGTERM, false, soon()); // PID 1 without a handler
    expect(await box.shell("ps | grep -c 'sleep 1000$'")).toBe("1");
    await careless.process.signal(SIGKILL, false, soon());
    expect((await careless.ended()).end).toBe(`signal ${SIGKILL}`);
    const cared = box.start(["sleep", "1000"], { ...first, init: true });
    await cared.process.pid;
    expect(await box.shell("tr '\\0' ' ' </proc/1/cmdline; tr '\\0' ' ' </proc/2/cmdline")).toBe(
      "mayfly-init 2 sleep 1000",
    );
    const next = await box.shell(orphan);
    expect((await box.run(`while [ -e /proc/${next} ]; do :; done; ${zombies}`)).stdout).toBe("0\n");
    await cared.process.signal(SIGTERM, false, soon());
    expect((await cared.ended()).end).toBe(128 + SIGTERM);
  });

  test("has an init that passes on signals, codes and errors, with its user's rights", async () => {
    const box = await build();
    const behind = { ...first, init: true };
    const script = "trap 'echo got it; exit 5' TERM USR1; echo ready; while :; do sleep 0.01; done";
    for (const { signal, tree } of [
      { signal: SIGTERM, tree: false },
      { signal: 10, tree: true },
    ]) {
      const process = await box.start(["sh", "-c", script], behind).has("ready");
      await process.process.signal(signal, tree, soon());
      expect(await process.ended()).toMatchObject({ end: 5, stdout: "ready\ngot it\n" });
    }
    expect(await refusal(box, behind, ["no-such-program"])).toBe(2);
    expect(await refusal(box, behind, ["/etc/release"])).toBe(13);
    expect(await refusal(box, { ...behind, cwd: "/etc/release" })).toBe(20);
    expect((await box.run("pwd", { ...behind, cwd: "/made/for/it" })).stdout).toBe("/made/for/it\n");
    const status = "cat /proc/1/status; stat -c %u /proc/1; tty; ls /proc/1/fd; readlink /proc/1/fd/1";
    const user = { ...behind, uid: 1000, gid: 100, capabilities: 0n, terminal: { rows: 2, columns: 99 } };
    const { stdout } = await box.run(status, user);
    expect(stdout).toContain("Name:\tmayfly-init");
    expect(stdout).toMatch(/Uid:\t1000\t1000/);
    expect(stdout).toMatch(/CapBnd:\t0000000000000000/);
    expect(stdout).toContain("/dev/pts/0");
    expect((await box.run("kill -9 $$", behind)).end).toBe(128 + SIGKILL);
    expect(await refusal(box, { init: true })).toBe(EINVAL);
  });

  test("has an init of the agent's own when nothing is asked to be first", async () => {
    const box = await build();
    expect(await box.shell("echo $$; cat /proc/1/comm; grep CapEff /proc/1/status")).toBe(
      "2\nmayfly-init\nCapEff:\t0000000000000000",
    );
    const left = await box.shell("sh -c 'sleep 1000 & echo $!'");
    expect(
      await box.shell(`grep PPid /proc/${left}/status; kill ${left}; while [ -e /proc/${left} ]; do :; done`),
    ).toBe("PPid:\t1");
    expect((await box.run("kill -9 1; kill -TERM 1; sleep 0.1; echo still there")).stdout).toBe("still there\n");
    expect(await refusal(box, first)).toBe(EEXIST);
    await box.outside("for p in /proc/[0-9]*; do grep -q mayfly-init $p/comm && kill -9 ${p#/proc/}; done; true");
    // Another one, which has the name of its program for a moment.
    expect(await box.shell("until grep -q mayfly-init /proc/1/comm; do :; done; cat /proc/1/comm")).toBe("mayfly-init");
  });

  test("has hooks, which run while it is frozen", async () => {
    const box = await build();
    const script = "i=0; while :; do i=$((i+1)); echo $i >/count; done";
    const busy = box.start(["sh", "-c", `echo go; ${script}`], first);
    await busy.has("go");
    await box.agent.freeze(soon());
    expect(await refusal(box, { hook: true })).toBe(EBUSY);
    await box.agent.identity(identityRequest(newIdentity("hooked")), soon());
    expect(await refusal(box, {})).toBe(EBUSY);
    const hook = await box.run("hostname; a=$(cat /count); sleep 0.1; b=$(cat /count); echo $((b-a)) $$", {
      hook: true,
    });
    expect(hook.stdout).toMatch(/^hooked\n0 \d+\n$/);
    expect(await box.shell("cat /proc/self/cgroup", { hook: true })).toMatch(/^0::\/\.\.\/hooks\/\d+$/);
    expect(await box.shell("readlink /proc/1/ns/pid", { hook: true, outside: true })).not.toBe(
      await box.shell("readlink /proc/1/ns/pid", { hook: true }),
    );
    await box.agent.thaw(soon());
    await box.shell("a=$(cat /count); while [ $(cat /count) = $a ]; do :; done");
    expect(await refusal(box, { ...first, hook: true })).toBe(EINVAL);
    expect(await refusal(box, { ...first, outside: true })).toBe(EINVAL);
  });

  test("is torn down to nothing, and built again on another disk", async () => {
    const box = await start({});
    const qmp = await box.vm.qmp();
    const answers: string[] = [];
    for (const path of [image, other, image]) {
      await attachDisks(qmp, rootOn(path), soon());
      await box.agent.container({ fstype: "erofs" }, soon());
      answers.push(
        await box.shell("cat /etc/release; ls /left 2>/dev/null; ls /dev/shm; echo x >/left; echo >/dev/shm/y"),
      );
      const reading = box.agent.readFile("/dev/zero", () => undefined, soon());
      await rejection(reading.opened);
      const running = box.start(["sleep", "1000"]);
      await running.process.pid;
      await box.agent.teardown({}, soon());
      expect((await running.ended()).end).toBe(`signal ${SIGKILL}`);
      await detachDisks(qmp, rootOn(path), soon());
      expect(await box.shell("ls /")).toContain("init");
    }
    expect(answers).toEqual(["a root of its own", "another root", "a root of its own"]);
    // Kept mounted outside, what is read of a root outlives its container.
    await attachDisks(qmp, rootOn(other), soon());
    await box.outside("mount -t erofs -o ro /dev/vda /mnt");
    await box.agent.container({ fstype: "erofs", sameRoot: true }, soon());
    expect(await box.shell("cat /etc/release")).toBe("another root");
    await box.agent.teardown({}, soon());
    expect(await box.shell("cat /mnt/etc/release")).toBe("another root");
  });

  test("leaves nothing behind in a hundred lives", async () => {
    const box = await start();
    const mounts = [{ kind: "tmpfs", target: "/made/here" }] as const;
    const live = async () => {
      await box.agent.container({ fstype: "erofs", mounts }, soon());
      await box.shell("head -c 300000 /dev/zero >/made/here/x; cat /etc/release >/dev/shm/y", {
        ...first,
        init: true,
      });
      await box.agent.teardown({}, soon());
    };
    const left = () =>
      box.shell("ls /proc/1/fd | wc -l; wc -l </proc/1/mountinfo; find /sys/fs/cgroup | wc -l; find / -xdev | wc -l");
    const memory = async () => {
      await box.agent.sync(soon());
      return (await box.agent.stats(soon())).memoryAvailableBytes;
    };
    for (let round = 0; round < 5; round++) await live();
    const [before, free] = [await left(), await memory()];
    for (let round = 0; round < 95; round++) await live();
    expect(await left()).toBe(before);
    expect(Math.abs(free - (await memory()))).toBeLessThan(2 * MIB);
  }, 120_000);

  test("says that a disk is not free as long as it is not", async () => {
    const volume = { path: await ext4(newDirectory("busy"), "volume"), format: "raw", readOnly: false } as const;
    const box = await start({ ...rootOn(image), volume0: volume });
    const mounts = [{ kind: "disk", disk: 0, fstype: "ext4", target: "/data" }] as const;
    await box.agent.container({ fstype: "erofs", mounts }, soon());
    await box.outside("mount -t ext4 /dev/vdc /mnt");
    expect((await rejection(box.agent.teardown({}, soon()))).details.errno).toBe(EBUSY);
    await box.outside("umount /mnt");
    await box.agent.container({ fstype: "erofs", mounts }, soon());
    await box.agent.teardown({}, soon());
    await runTool(["e2fsck", "-fn", volume.path]);
  });

  test("gives its disks back whole, trimmed and with all that was written", async () => {
    const directory = newDirectory("disks");
    const [scratch, volume, shared] = [
      await ext4(directory, "scratch"),
      await ext4(directory, "volume"),
      await erofsOf(await rootTree()),
    ];
    const writable = (path: string) => ({ path, format: "raw", readOnly: false }) as const;
    const disks = { scratch: writable(scratch), volume0: writable(volume), volume2: writable(shared) };
    const box = await start({ ...rootOn(image), ...disks });
    const mounts = [
      { kind: "disk", disk: 0, fstype: "ext4", target: "/data", nosuid: true, nodev: true },
      { kind: "disk", disk: 2, fstype: "erofs", target: "/data/shared", readOnly: true },
    ] as const;
    const spec: ContainerSpec = { fstype: "erofs", scratch: true, mounts };
    for (const round of [1, 2, 3]) {
      await box.agent.container(spec, soon());
      const script = `
        mkdir -p /data/shared; cat /data/log /log; echo ${round} >>/data/log; echo ${round} >>/log
        head -c 8000000 /dev/zero >/data/big; head -c 8000000 /dev/zero >/big; rm /data/big /big
        cat /data/shared/etc/release; touch /data/shared/x`;
      const { stdout, stderr } = await box.run(script, first);
      const earlier = [1, 2, 3]
        .slice(0, round - 1)
        .map((n) => `${n}\n`)
        .join("");
      expect(stdout).toBe(`${earlier}${earlier}a root of its own\n`);
      expect(stderr).toContain("Read-only file system");
      const open = box.start(["sh", "-c", "exec 3>/data/open; while :; do echo x >&3; done"], first);
      await open.process.pid;
      await box.agent.teardown({ trim: true }, soon());
      await open.ended();
      for (const path of [scratch, volume]) await runTool(["e2fsck", "-fn", path]);
      expect((await runTool(["debugfs", "-R", "cat /log", volume])).stdout).toBe(`${earlier}${round}\n`);
      expect((await runTool(["debugfs", "-R", "cat /upper/log", scratch])).stdout).toBe(`${earlier}${round}\n`);
    }
    for (const path of [scratch, volume]) {
      const blocks = Number((await runTool(["stat", "-c", "%b", path])).stdout);
      expect(blocks * 512).toBeLessThan(6 * MIB);
    }
  });
});

/** An empty file system of 64 MiB. */
async function ext4(directory: string, name: string): Promise<string> {
  const path = join(directory, name);
  writeFileSync(path, "");
  truncateSync(path, 64 * MIB);
  await runTool(["mkfs.ext4", "-q", "-E", "assume_storage_prezeroed=1", path]);
  return path;
}
