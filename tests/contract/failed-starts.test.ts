/** Starts that are refused or fail late: ports, volumes and names that they had are free again, and the reason names who has what is taken. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CreateVmRequest } from "../../src/contract/api.ts";
import { runTool } from "../../src/sys/tool.ts";
import { serviceImage } from "../support/application.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("a start that fails", () => {
  let vms: TestEngine;
  let image: string;

  beforeAll(async () => {
    vms = await TestEngine.open();
    image = await serviceImage(vms);
    vms.markDescriptors();
  }, 60_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const onImage = (): CreateVmRequest => ({ rootfs: image, command: ["/bin/main"], name: "one" });
  const refused = (request: CreateVmRequest) => rejection(vms.engine.createVm(request, { deadline: soon() }));

  test("has no port any more", async () => {
    const free = await vms.start({ ports: [{ hostIp: "127.0.0.1", hostPort: 0, guestPort: 8080 }] });
    const ports = [...free.ports];
    await vms.remove(free.id);
    expect(await refused({ ...onImage(), ports, health: { test: ["CMD"] } })).toMatchObject({
      code: "invalid_argument",
    });
    expect(await refused({ ...onImage(), ports, command: ["/bin/nothing"] })).toMatchObject({
      code: "command_not_found",
    });
    expect(vms.engine.listVms()).toEqual([]);
    expect((await vms.start({ ...onImage(), ports })).ports).toEqual(ports);
  });

  test("is told which VM has the port", async () => {
    const { ports } = await vms.start({ ...onImage(), ports: [{ hostIp: "127.0.0.1", hostPort: 0, guestPort: 8080 }] });
    const [{ hostPort } = { hostPort: 0 }] = ports;
    for (const hostIp of ["127.0.0.1", "0.0.0.0"]) {
      const request = { rootfs: image, command: ["/bin/main"], ports: [{ hostIp, hostPort, guestPort: 1 }] };
      expect(await refused(request)).toMatchObject({
        code: "port_in_use",
        message: `Cannot listen on ${hostIp}:${hostPort}: VM one publishes it`,
      });
    }
  });

  test("is told when it wants a port twice", async () => {
    const [free] = (await vms.start({ ports: [{ hostIp: "127.0.0.1", hostPort: 0, guestPort: 1 }] })).ports;
    const hostPort = free?.hostPort ?? 0;
    await vms.removeAll();
    const ports = [1, 2].map((guestPort) => ({ hostIp: "127.0.0.1", hostPort, guestPort }));
    expect(await refused({ ...onImage(), ports })).toMatchObject({
      code: "invalid_argument",
      message: `Cannot publish 127.0.0.1:${hostPort} twice`,
    });
  });

  test("has no QEMU any more when only the record of a volume's first use fails", async () => {
    await vms.engine.createVolume({ name: "data" });
    const directory = join(vms.stateDir, "volumes/data");
    const request = { ...onImage(), volumes: [{ source: { volume: "data" }, target: "/data" }] };
    // Its data can be written, nothing can be made in it.
    await runTool(["chattr", "+i", directory]);
    const error = await vms.engine.createVm(request, { deadline: soon() }).catch((reason: unknown) => reason);
    await runTool(["chattr", "-i", directory]);
    expect(String(error)).toContain("EPERM");
    expect([vms.engine.listVms(), await vms.leftBehind()]).toEqual([[], NOTHING_LEFT]);
    const vm = await vms.start(request);
    await vms.remove(vm.id);
    await vms.engine.removeVolume("data");
  });

  test("is neither stopped nor removed while it is under way: it would go on", async () => {
    const starting = vms.engine.createVm(onImage(), { deadline: soon() });
    while (vms.engine.listVms().length === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(vms.engine.getVm("one").state).toBe("creating");
    expect(await rejection(vms.engine.stopVm("one", 0, soon()))).toMatchObject({ code: "vm_not_running" });
    expect(await rejection(vms.engine.removeVm("one", { force: true, deadline: soon() }))).toMatchObject({
      code: "vm_running",
    });
    await starting;
    expect((await vms.engine.stopVm("one", 0, soon())).state).toBe("exited");
  });

  test("leaves nothing when its daemon was killed", async () => {
    const kept = await vms.start({ ...onImage(), name: "kept" });
    const directory = join(vms.stateDir, "vms", `vm_${"a".repeat(26)}`);
    mkdirSync(join(directory, "disks"), { recursive: true });
    writeFileSync(join(directory, "stdout.log"), "cut short");
    vms = await vms.reopen();
    expect(readdirSync(join(vms.stateDir, "vms"))).toEqual([kept.id]);
    expect(vms.engine.getVm("kept").state).toBe("running");
    await vms.remove(kept.id);
    vms.markDescriptors();
  });

  test("leaves no volume that nobody has named", async () => {
    const volumes = [{ source: { volume: "made" }, target: "/data", anonymous: true }];
    const failed = { ...onImage(), volumes, command: ["/bin/nothing"] };
    expect(await refused(failed)).toMatchObject({ code: "command_not_found" });
    expect(vms.engine.listVolumes()).toEqual([]);
  });
});
