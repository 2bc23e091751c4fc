/** Containers in the guest: what a process finds there, compared to what is outside. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ContainerSpec } from "../../src/agent/requests.ts";
import { NO_LIMIT } from "../../src/agent/requests.ts";
import { identityRequest } from "../../src/engine/identity.ts";
import { ContainerGuest, DOCKER_CAPABILITIES } from "../support/containers.ts";
import { DiskHost } from "../support/disk-clones.ts";
import { soon } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { rejection } from "../support/fake-peer.ts";
import { erofsOf, rootTree } from "../support/rootfs.ts";

const lines = (text: string) => text.split("\n");

describeVms("a container", () => {
  let host: DiskHost;
  let image: string;
  let hostile: string;
  let guest: ContainerGuest | undefined;

  beforeAll(async () => {
    host = await DiskHost.open();
    const tree = await rootTree();
    mkdirSync(join(tree, "data"));
    writeFileSync(join(tree, "data/from-image"), "image\n");
    image = await erofsOf(tree);
    hostile = await erofsOf(await hostileTree());
  });
  afterEach(async () => {
    await guest?.[Symbol.asyncDispose]();
    guest = undefined;
  });
  afterAll(() => host?.[Symbol.dispose]());

  const build = async (spec: Partial<ContainerSpec> = {}, path = image): Promise<ContainerGuest> => {
    guest = await ContainerGuest.start(host, { root: { path, format: "raw", readOnly: true } });
    await guest.agent.container({ fstype: "erofs", ...spec }, soon());
    return guest;
  };

  test("has namespaces, processes and a name of its own", async () => {
    const box = await build();
    const read = "for n in mnt uts ipc pid cgroup net user time; do echo $n $(readlink /proc/self/ns/$n); done";
    const namespaces = async (spec = {}) =>
      Object.fromEntries(lines(await box.shell(read, spec)).map((line) => line.split(" ")));
    const outside = await namespaces({ outside: true });
    const first = box.start(["sh", "-c", `echo pid $$; ${read}; ps; echo ready; exec cat`], {
      first: true,
      stdin: true,
    });
    await first.has("ready");
    const inside = await namespaces();
    for (const name of ["mnt", "uts", "ipc", "pid", "cgroup"]) expect(inside[name]).not.toBe(outside[name]);
    for (const name of ["net", "user", "time"]) expect(inside[name]).toBe(outside[name]);
    const { stdout } = first.output;
    expect(lines(stdout)[0]).toBe("pid 1");
    for (const [name, value] of Object.entries(inside)) expect(stdout).toContain(`${name} ${value}\n`);
    expect(lines(stdout.slice(stdout.indexOf("PID"))).length).toBeLessThanOrEqual(5); // a heading, sh, ps, "ready", ""
    await box.shell("hostname inside");
    expect(await box.shell("hostname")).toBe("inside");
    expect(await box.outside("hostname")).toBe("disks");
    await first.process.stdin.end();
    expect((await first.ended()).end).toBe(0);
  });

  test("has what the OCI specification mounts, read-only where it says so", async () => {
    const box = await build({ shmBytes: 8 * 2 ** 20, upperBytes: 16 * 2 ** 20 });
    const mounts = lines(await box.shell("cat /proc/mounts")).map((line) => line.split(" "));
    const shown = mounts.map(([, target, type, options = ""]) => `${target} ${type} ${options.split(",")[0]}`);
    expect(shown.filter((mount) => !mount.startsWith("/proc/")).toSorted()).toEqual([
      "/ overlay rw",
      "/dev tmpfs rw",
      "/dev/mqueue mqueue rw",
      "/dev/pts devpts rw",
      "/dev/shm tmpfs rw",
      "/etc/hostname tmpfs rw",
      "/etc/hosts tmpfs rw",
      "/etc/machine-id rootfs rw",
      "/etc/resolv.conf tmpfs rw",
      "/proc proc rw",
      "/sys sysfs ro",
      "/sys/firmware tmpfs ro",
      "/sys/fs/cgroup cgroup2 ro",
    ]);
    // The minimal kernel is built without this one.
    const sysrq = (await box.run("test -e /proc/sysrq-trigger")).end === 0 ? ["/proc/sysrq-trigger"] : [];
    for (const path of ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", ...sysrq]) {
      expect(shown).toContain(`${path} proc ro`);
    }
    expect(await box.shell("df -k /dev/shm / | grep -o ' [0-9]\\{4,\\} ' | head -n 1")).toBe("8192");
    expect(await box.shell("cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware")).toBe(
      "0\n/proc/acpi:\n\n/sys/firmware:",
    );
    const refused = await box.run(
      "echo x >/proc/sys/kernel/hostname; echo b >/proc/sysrq-trigger; mkdir /sys/fs/cgroup/x",
    );
    expect(refused.stderr.match(/Read-only file system/g)?.length).toBe(2 + sysrq.length);
  });

  test("has devices and terminals, and a console on the first process' terminal", async () => {
    const box = await build();
    const terminal = { rows: 20, columns: 60 };
    const script = "tty; test -c /dev/console && echo console >/dev/console; stty size; exec cat";
    const first = box.start(["sh", "-c", script], { first: true, terminal, stdin: true });
    await first.has("20 60\r\n");
    expect(first.output.stdout).toBe("/dev/pts/0\r\nconsole\r\n20 60\r\n");
    expect(await box.shell("tty; echo $?", { terminal })).toBe("/dev/pts/1\r\n0");
    const list =
      "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty; for l in fd stdin stdout stderr ptmx; do readlink $l; done";
    expect(lines(await box.shell(list))).toEqual([
      ...["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"].map((node) =>
        node.replace(" ", " character special file ").concat(" 666"),
      ),
      ...["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"],
    ]);
    expect(await box.shell("head -c 3 /dev/zero | wc -c; echo x >/dev/null; echo to >/dev/stdout")).toBe("3\nto");
    expect(await box.outside("ls /dev/pts")).toBe("ptmx");
  });

  test("has files of its identity, which change with it under a read-only root", async () => {
    const box = await build({ readOnly: true });
    const read = "cat /etc/machine-id /etc/hostname; hostname; cat /etc/hosts; wc -c </etc/resolv.conf";
    const before = await box.shell(read);
    expect(lines(before).slice(1)).toEqual([
      ...["disks", "disks", "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"],
      ...["127.0.1.1\tdisks", "0"],
    ]);
    const machineId = new Uint8Array(16).fill(0xab);
    await box.agent.identity(identityRequest({ hostname: "a-longer-name-than-before", machineId }), soon());
    const after = await box.shell(read);
    expect(lines(after)[0]).toBe("ab".repeat(16));
    expect(after).not.toContain("disks");
    expect(after.match(/a-longer-name-than-before/g)?.length).toBe(3);
    await box.agent.identity(identityRequest({ hostname: "short", machineId }), soon());
    expect(lines(await box.shell(read)).slice(1, 3)).toEqual(["short", "short"]);
    expect(await box.outside("hostname; cat /etc/machine-id")).toBe(`short\n${"ab".repeat(16)}`);
  });

  test("shows its limits where programs look for them", async () => {
    const box = await build();
    const { stdout } = await box.start(["cat", "/sys/fs/cgroup/memory.max"]).ended();
    expect(stdout).toBe("max\n");
    await box.agent.limits({ memoryBytes: 48 * 2 ** 20, cpuMillis: 500, pids: 77 }, soon());
    const read = `cd /sys/fs/cgroup; cat memory.max cpu.max pids.max; own=$(cut -d: -f3 /proc/self/cgroup)
      echo $own; cat ./$own/memory.max ./$own/cpu.max`;
    const [memory, cpu, pids, own, ...shown] = lines(await box.shell(read));
    expect({ memory, cpu, pids }).toEqual({ memory: String(48 * 2 ** 20), cpu: "50000 100000", pids: "77" });
    expect(own).toMatch(/^\/\d+$/);
    expect(shown).toEqual([String(48 * 2 ** 20), "50000 100000"]);
    await box.agent.limits({}, soon());
    expect(lines(await box.shell(read)).slice(-2)).toEqual(["max", "max 100000"]);
  });

  test("keeps every mount inside of its root, whatever the image's symlinks say", async () => {
    guest = await ContainerGuest.start(host, { root: { path: hostile, format: "raw", readOnly: true } });
    const box = guest;
    const agents = "cat /proc/1/mounts; find / /run /tmp /dev -xdev | sort; hostname";
    const seen = async () => lines(await box.outside(agents)).filter((line) => !line.startsWith("/run/etc"));
    const before = await seen();
    const mounts = ["/up/x", "/absolute/y", "/up/up/up/run/z", "/data/../../../../w"].map(
      (target) => ({ kind: "tmpfs", target }) as const,
    );
    await box.agent.container({ fstype: "erofs", readOnly: true, mounts }, soon());
    await box.shell("touch /x/in /etc/y/in /run/z/in /w/in && cat /etc/hosts && grep -q machine-id /proc/mounts");
    expect(await seen()).toEqual(before);
  });

  test("may have a read-only root, with memory and directories that are not", async () => {
    const box = await build({
      readOnly: true,
      mounts: [
        { kind: "directory", target: "/data" },
        { kind: "directory", target: "/made/for/it" },
        { kind: "tmpfs", target: "/scratch", mode: 0o700, sizeBytes: 2 ** 20, noexec: true },
        { kind: "tmpfs", target: "/frozen", readOnly: true },
      ],
    });
    const script = `
      cat /data/from-image; echo more >>/data/from-image; echo new >/data/new; touch /made/for/it/x
      echo t >/scratch/t; touch /dev/shm/x /dev/x; stat -c %a /scratch; df -k /scratch | grep -o ' 1024 '
      touch /x /etc/x /made/x /frozen/x; rm /bin/ls; cat /data/from-image`;
    const { stdout, stderr } = await box.run(script);
    expect(lines(stdout.trim())).toEqual(["image", "700", " 1024 ", "image", "more"]);
    expect(stderr.match(/Read-only file system/g)?.length).toBe(5);
    const write = box.agent.writeFile("/scratch/from/host", { parents: true, mode: 0o600 }, soon());
    await write.write(Buffer.from("secret"));
    await write.end();
    expect(await box.shell("stat -c %a /scratch/from/host; cat /scratch/from/host")).toBe("600\nsecret");
  });

  test("gives processes the capabilities, limits and groups that they were asked to have", async () => {
    const box = await build();
    const script = "grep -E '^(Uid|Groups|Cap|NoNewPrivs|Umask)' /proc/self/status; cat /proc/self/oom_score_adj";
    const status = async (spec: object) =>
      lines(await box.shell(script, spec)).map((line) => line.replaceAll(/\s+/g, " ").trim());
    const mask = DOCKER_CAPABILITIES.toString(16).padStart(16, "0");
    const none = "0".repeat(16);
    expect(await status({ capabilities: DOCKER_CAPABILITIES, umask: 0o27 })).toEqual([
      ...["Umask: 0027", "Uid: 0 0 0 0", "Groups:", `CapInh: ${none}`, `CapPrm: ${mask}`, `CapEff: ${mask}`],
      ...[`CapBnd: ${mask}`, `CapAmb: ${none}`, "NoNewPrivs: 0", "0"],
    ]);
    const user = { uid: 1000, gid: 100, groups: [4, 20], capabilities: DOCKER_CAPABILITIES };
    expect(await status(user)).toEqual([
      ...["Umask: 0022", "Uid: 1000 1000 1000 1000", "Groups: 4 20", `CapInh: ${none}`, `CapPrm: ${none}`],
      ...[`CapEff: ${none}`, `CapBnd: ${mask}`, `CapAmb: ${none}`, "NoNewPrivs: 0", "0"],
    ]);
    expect(await status({ capabilities: 0n })).toContain(`CapEff: ${none}`);
    const all = (await status({})).find((line) => line.startsWith("CapEff"));
    expect(all).toMatch(/^CapEff: 0*1ffffffffff$/);
    const limits = [
      { resource: 7, soft: 1024n, hard: 4096n },
      { resource: 4, soft: 0n, hard: NO_LIMIT },
    ];
    const read = "grep -E 'open files|core file' /proc/self/limits";
    expect(lines((await box.shell(read, { limits, ...user })).replaceAll(/ {2,}/g, " "))).toEqual([
      "Max core file size 0 unlimited bytes ",
      "Max open files 1024 4096 files",
    ]);
    expect((await box.run("mount -t tmpfs x /srv", { capabilities: DOCKER_CAPABILITIES })).end).not.toBe(0);
    expect((await box.run("mount -t tmpfs x /srv")).end).toBe(0);
  });

  test("is refused by errno when it cannot be", async () => {
    const box = await build();
    const container = (spec: Partial<ContainerSpec>) =>
      rejection(box.agent.container({ fstype: "erofs", ...spec }, soon())).then(({ details }) => details.errno);
    expect(await container({})).toBe(114); // EALREADY
    expect(await container({ fstype: "vfat" as "ext4" })).toBe(22);
    expect(await container({ mounts: [{ kind: "disk", target: "/x", disk: 3, fstype: "ext4" }] })).toBe(22);
    await box.agent.teardown({}, soon());
    expect((await rejection(box.agent.teardown({}, soon()))).details.errno).toBe(2);
    const before = await box.shell("cat /proc/mounts; ls /proc/1/fd | wc -l");
    expect(await container({ fstype: "ext4" })).toBe(22);
    expect(await container({ mounts: [{ kind: "tmpfs", target: "/etc/passwd" }] })).toBe(20);
    expect(await container({ mounts: [{ kind: "disk", target: "/x", disk: 0, fstype: "erofs" }] })).toBe(22);
    expect(await box.shell("cat /proc/mounts; ls /proc/1/fd | wc -l")).toBe(before);
    await box.agent.container({ fstype: "erofs" }, soon());
    expect(await box.shell("cat /etc/release")).toBe("a root of its own");
  });
});

/** A root whose symlinks lead everywhere. */
async function hostileTree(): Promise<string> {
  const tree = await rootTree();
  for (const name of ["sys", "run", "srv"]) rmSync(join(tree, name), { recursive: true });
  const links = { up: "../../../../..", absolute: "/etc", sys: "/var", srv: "../../../../../dev" };
  for (const [name, target] of Object.entries(links)) symlinkSync(target, join(tree, name));
  symlinkSync("/no/such/place/at/all", join(tree, "etc/resolv.conf"));
  symlinkSync("../../../../run/root/lower", join(tree, "etc/hostname"));
  return tree;
}
