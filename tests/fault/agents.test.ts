/** A running VM whose agent lies, stalls or is cut off: that VM ends, or waits, and no other notices. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Vm } from "../../src/contract/api.ts";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { Interposer } from "../support/interposer.ts";

describeVms("a running VM", () => {
  let vms: TestEngine;
  let neighbour: Vm;

  beforeAll(async () => {
    vms = await TestEngine.open({ pool: { blocked: 1, warm: 0, parent: false } });
    neighbour = await vms.start({ name: "neighbour", pool: false });
    await vms.run(["true"]);
    await vms.poolsFull();
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const { id } of vms.engine.listVms()) if (id !== neighbour.id) await vms.remove(id);
    expect(await vms.shell("neighbour", "echo unharmed")).toBe("unharmed");
    expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
    await vms.poolsFull();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  /** Starts a VM through a man in the middle. */
  const start = async (command?: string[]) => {
    await vms.poolsFull();
    const taken = vms.engine.getVm("neighbour").pid;
    const slots = readdirSync(join(vms.runDir, "q"));
    const cgroups = await Bun.file(`/proc/${taken}/cgroup`).text();
    const slot = slots.find((name) => !cgroups.includes(`/q${name}\n`)) ?? "";
    const middle = new Interposer(join(vms.runDir, "q", slot, "agent"));
    const request = command === undefined ? {} : { command };
    const { vm } = await vms.engine.createVm(request, { deadline: soon() });
    expect(middle.connections).toBe(1);
    return { vm, middle };
  };
  const ended = (id: string) => vms.engine.waitVm(id, AbortSignal.timeout(10_000));

  const LIES: readonly { name: string; lie: (epoch: Buffer) => Uint8Array }[] = [
    { name: "bytes that are no frame", lie: () => Buffer.alloc(64, 0x41) },
    { name: "a frame of more than 64 KiB", lie: (epoch) => frame(epoch, 3, 4, Buffer.alloc(0), 0x7fffffff) },
    { name: "a frame of an unknown type", lie: (epoch) => frame(epoch, 0xee, 4, Buffer.alloc(8)) },
    { name: "an answer to no request", lie: (epoch) => frame(epoch, 6, 0x1ffff8, Buffer.alloc(4)) },
    { name: "a frame that only the host sends", lie: (epoch) => frame(epoch, 16, 4, Buffer.alloc(64)) },
  ];
  function frame(epoch: Buffer, type: number, stream: number, payload: Buffer, length = payload.length): Buffer {
    const header = Buffer.alloc(16);
    header.set([0xa7, type]);
    header.set(epoch, 4);
    header.writeUInt32LE(stream, 8);
    header.writeUInt32LE(length, 12);
    return Buffer.concat([header, payload]);
  }

  for (const { name, lie } of LIES) {
    test(`whose agent sends ${name} ends with a protocol violation`, async () => {
      const { vm, middle } = await start();
      using _middle = middle;
      let epoch = Buffer.alloc(4);
      middle.onHost = (bytes) => {
        if (bytes[0] === 0xa7) epoch = Buffer.from(bytes.subarray(4, 8));
      };
      await vms.exec(vm.id, ["true"]);
      const waiting = vms.exec(vm.id, ["sleep", "1000"]);
      waiting.catch(() => undefined);
      await vms.exec(vm.id, ["true"]);
      middle.forge(lie(epoch));
      expect(await ended(vm.id)).toMatchObject({ state: "failed", error: { code: "agent_protocol_violation" } });
      expect((await rejection(waiting)).code).toBe("agent_protocol_violation");
      expect((await rejection(vms.exec(vm.id, ["true"]))).code).toBe("vm_not_running");
    });
  }

  test("whose agent acknowledges what was not sent ends with a protocol violation", async () => {
    const { vm, middle } = await start();
    using _middle = middle;
    let forged = false;
    const output = new Output();
    const process = await vms.engine.exec(vm.id, { command: ["cat"], stdin: true }, output, soon());
    middle.onHost = (bytes) => {
      const [magic, type] = bytes;
      if (forged || magic !== 0xa7 || type !== 3) return;
      forged = true;
      const offset = Buffer.alloc(8);
      offset.writeBigUInt64LE(1_000_000n);
      const stream = bytes.readUInt32LE(8);
      queueMicrotask(() => middle.forge(frame(bytes.subarray(4, 8), 4, stream, offset)));
    };
    await process.write(Buffer.from("abc"));
    const error = await rejection(process.exited);
    expect({ forged, code: error.code }).toEqual({ forged: true, code: "agent_protocol_violation" });
    expect((await ended(vm.id)).error?.code).toBe("agent_protocol_violation");
  });

  test("that is cut off ends, and says so", async () => {
    const { vm, middle } = await start(["sleep", "1000"]);
    using _middle = middle;
    middle.cut();
    expect(await ended(vm.id)).toMatchObject({ state: "failed", error: { code: "agent_disconnected" } });
  });

  test("whose agent says nothing any more fails requests at their deadline, and can be removed", async () => {
    const { vm, middle } = await start(["sleep", "1000"]);
    using _middle = middle;
    middle.stall();
    expect((await rejection(vms.engine.statsVm(vm.id, soon(300)))).code).toBe("deadline_exceeded");
    const sink = new Output();
    const asked = vms.engine.exec(vm.id, { command: ["true"] }, sink, soon(300));
    expect((await rejection(asked)).code).toBe("deadline_exceeded");
    expect(vms.engine.getVm(vm.id).state).toBe("running");
    await vms.remove(vm.id);
  });

  test("whose QEMU is killed ends with that cause, and every process in it", async () => {
    const vm = (await vms.engine.createVm({ command: ["sleep", "1000"] }, { deadline: soon() })).vm;
    const running = vms.exec(vm.id, ["sleep", "1000"]);
    running.catch(() => undefined);
    const session = vms.engine.attach(vm.id, new Output(), { logs: true });
    await vms.exec(vm.id, ["true"]);
    process.kill(vm.pid ?? 0, "SIGKILL");
    expect(await ended(vm.id)).toMatchObject({
      state: "failed",
      exitCode: 255,
      error: { code: "qemu_exited", details: { signal: "SIGKILL" } },
    });
    expect((await rejection(running)).kind).toBe("unavailable");
    expect((await rejection(session.exited)).kind).toBe("unavailable");
  });

  test("whose QEMU is stopped fails requests at their deadline, goes on with it, and can be removed", async () => {
    const vm = await vms.start();
    process.kill(vm.pid ?? 0, "SIGSTOP");
    expect((await rejection(vms.engine.statsVm(vm.id, soon(300)))).code).toBe("deadline_exceeded");
    process.kill(vm.pid ?? 0, "SIGCONT");
    expect(await vms.shell(vm.id, "echo awake")).toBe("awake");
    process.kill(vm.pid ?? 0, "SIGSTOP");
    await vms.remove(vm.id);
  });
});
