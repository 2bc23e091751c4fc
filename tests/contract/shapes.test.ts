/** Sizes of VMs: memory shapes, CPUs, limits inside the guest and on the host, and how many templates are kept. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { MINIMUM_MEMORY_MIB } from "../../src/machine/shape.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, readProc, SMALL } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

const MIB = 2 ** 20;

describeVms("a VM's size", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open({ templateLimit: 2 });
    await vms.run(["true"]);
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => expect(await vms.leftBehind()).toEqual(NOTHING_LEFT));

  test("is checked before anything is started", async () => {
    const code = async (request: object) => (await rejection(vms.run(["true"], request))).code;
    const tooSmall = await rejection(vms.run(["true"], { memoryBytes: (MINIMUM_MEMORY_MIB - 1) * MIB }));
    expect(tooSmall.code).toBe("memory_too_small");
    expect(tooSmall.message).toContain(`${MINIMUM_MEMORY_MIB} MiB`);
    expect(await code({ memoryBytes: 9 * 1024 * MIB })).toBe("invalid_argument");
    expect(await code({ cpus: 9 })).toBe("invalid_argument");
    expect(await code({ cpus: 0 })).toBe("invalid_argument");
    expect(vms.engine.listVms()).toEqual([]);
  });

  test("that is asked for is seen in the guest", async () => {
    const { vm, stdout } = await vms.run(["sh", "-c", "grep MemTotal /proc/meminfo; nproc"], {
      memoryBytes: 256 * MIB,
      cpus: 2,
    });
    const [memory = "", cpus] = stdout.trim().split("\n");
    expect(Number(/(\d+) kB/.exec(memory)?.[1])).toBeGreaterThan(190 * 1024);
    expect(cpus).toBe("2");
    expect(vms.engine.getTemplate(vm.templateId).shape).toEqual({ memoryMiB: 256, vcpus: 2 });
    expect(vm.memoryBytes).toBe(256 * MIB);
  });

  test("with two CPUs runs two things at a time, and keeps time on both", async () => {
    const script = `
      for cpu in 0 1; do taskset -c $cpu sh -c 'date +%s; cut -d. -f1 /proc/uptime' & done; wait
      grep -c ^processor /proc/cpuinfo
    `;
    const lines = (await vms.script(script, { memoryBytes: 256 * MIB, cpus: 2 })).split("\n");
    expect(lines.at(-1)).toBe("2");
    const times = lines.filter((line) => line.length === 10).map(Number);
    for (const time of times) expect(Math.abs(time - Date.now() / 1000)).toBeLessThan(20);
  });

  test("between two shapes is the larger one, limited inside", async () => {
    const request = { memoryBytes: 200 * MIB, cpus: 1.5 };
    const vm = await vms.start(request);
    expect(vm.memoryBytes).toBe(200 * MIB);
    expect(vms.engine.getTemplate(vm.templateId).shape).toEqual({ memoryMiB: 256, vcpus: 2 });
    const limits = await vms.shell(vm.id, "cat /sys/fs/cgroup/workload/memory.max /sys/fs/cgroup/workload/cpu.max");
    expect(limits).toBe(`${200 * MIB}\n150000 100000`);
    await vms.remove(vm.id);
  });

  test("is kept by its control group on the host", async () => {
    const vm = await vms.start({ cpus: 0.25 });
    const groups = readProc(`/proc/${vm.pid}/cgroup`);
    expect(groups).toMatch(new RegExp(`${vms.group}/q\\d+`));
    const version = vms.engine.info().cgroup;
    const path = (controller: string) =>
      new RegExp(`^\\d+:${version === "v1" ? `(?:[^:]*,)?${controller}(?:,[^:]*)?` : ""}:(.*)$`, "m").exec(groups)?.[1];
    const read = (controller: string, v1: string, v2: string) =>
      version === "v1"
        ? readProc(`/sys/fs/cgroup/${controller}${path(controller)}/${v1}`).trim()
        : readProc(`/sys/fs/cgroup${path(controller)}/${v2}`).trim();
    const memoryBytes = Number(read("memory", "memory.limit_in_bytes", "memory.max"));
    expect(memoryBytes).toBeGreaterThan(128 * MIB);
    expect(memoryBytes).toBeLessThan(512 * MIB);
    expect(read("cpu", "cpu.cfs_quota_us", "cpu.max").split(" ")[0]).toBe("25000");
    expect(Number(read("pids", "pids.max", "pids.max"))).toBeLessThanOrEqual(256);
    await vms.remove(vm.id);
  });

  test("survives a guest that wants more memory than there is", async () => {
    const vm = await vms.start();
    const { exitCode } = await vms.exec(vm.id, ["tail", "/dev/zero"]);
    expect(exitCode).toBe(137);
    const { vm: after, stdout } = await vms.exec(vm.id, ["echo", "still here"]);
    expect(stdout).toBe("still here\n");
    expect(after.state).toBe("running");
    await vms.remove(vm.id);
  });

  test("makes a template for each shape, of which the least recently used goes when there are too many", async () => {
    const shapes = () => vms.engine.listTemplates().map(({ shape }) => `${shape.memoryMiB}x${shape.vcpus}`);
    expect(shapes().sort()).toEqual([`${SMALL.memoryMiB}x1`, "256x2"]);
    const built = await vms.engine.buildTemplate({ memoryBytes: 128 * MIB, cpus: 2 }, { deadline: soon() });
    expect(built.shape).toEqual({ memoryMiB: 128, vcpus: 2 });
    expect(shapes().sort()).toEqual(["128x2", "256x2"]);
    expect((await vms.run(["nproc"], { cpus: 2 })).stdout).toBe("2\n");
  });
});
