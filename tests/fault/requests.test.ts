/** Requests for what there is not: typed errors at once, and nothing is started. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

const NEVER = new AbortController().signal;

describeVms("a request", () => {
  let vms: TestEngine;
  beforeAll(async () => {
    vms = await TestEngine.open();
    await vms.run(["true"]);
    vms.markDescriptors();
  });
  afterAll(async () => {
    expect(await vms?.leftBehind()).toEqual(NOTHING_LEFT);
    await vms?.[Symbol.asyncDispose]();
  });

  /** The code of a call's error, thrown or rejected. */
  const code = async (call: () => unknown) => (await rejection((async () => call())())).code;

  test("for an unknown VM", async () => {
    const { engine } = vms;
    const deadline = soon();
    const options = { parents: false, mode: 0o755, deadline };
    const calls: (() => unknown)[] = [
      () => engine.getVm("nobody"),
      () => engine.exec("nobody", { command: ["true"] }, new Output(), deadline),
      () => engine.attach("nobody", new Output(), { logs: true }),
      () => engine.logs("nobody", { follow: false, signal: NEVER })[Symbol.asyncIterator]().next(),
      () => engine.killVm("nobody", 9, deadline),
      () => engine.stopVm("nobody", 0, deadline),
      () => engine.removeVm("nobody", { force: true, deadline }),
      () => engine.waitVm("nobody", NEVER),
      () => engine.statsVm("nobody", deadline),
      () => engine.console("nobody", deadline),
      () => engine.readFile("nobody", "/x", deadline),
      () => engine.statFile("nobody", "/x", deadline),
      () => engine.listFiles("nobody", "/x", deadline),
      () => engine.makeDirectory("nobody", "/x", options),
      () => engine.removeFile("nobody", "/x", { recursive: false, deadline }),
    ];
    expect(await Promise.all(calls.map(code))).toEqual(calls.map(() => "vm_not_found"));
  });

  test("for an unknown template or image", async () => {
    const { engine } = vms;
    expect(await code(() => engine.getTemplate("none"))).toBe("template_not_found");
    expect(await code(() => engine.verifyTemplate("none", soon()))).toBe("template_not_found");
    expect(await code(() => engine.removeTemplate("none", { force: true }))).toBe("template_not_found");
    expect(await code(() => engine.getImage("none"))).toBe("image_not_found");
    expect(await code(() => engine.removeImage("none"))).toBe("image_not_found");
    expect(await code(() => engine.importImage({ name: "x", path: "relative" }, { deadline: soon() }))).toBe(
      "invalid_argument",
    );
    expect(await code(() => engine.importImage({ name: "x", path: "/no/such" }, { deadline: soon() }))).toBe(
      "file_not_found",
    );
    expect(await code(() => engine.importImage({ name: "x", path: "/etc/passwd" }, { deadline: soon() }))).toBe(
      "image_invalid",
    );
  });

  test("that is over before it begins", async () => {
    const { Deadline } = await import("../../src/sys/deadline.ts");
    const gone = AbortSignal.abort();
    const create =
      (deadline = soon(0)) =>
      () =>
        vms.engine.createVm({ command: ["true"] }, { deadline });
    expect(["deadline_exceeded", "agent_not_ready"]).toContain(await code(create()));
    expect(["cancelled", "deadline_exceeded"]).toContain(await code(create(Deadline.after(10_000, gone))));
    expect(vms.engine.listVms()).toEqual([]);
  });

  test("that is cancelled while its VM starts", async () => {
    const { Deadline } = await import("../../src/sys/deadline.ts");
    for (const afterMs of [0, 5, 15, 30]) {
      const controller = new AbortController();
      const deadline = Deadline.after(10_000, controller.signal);
      const starting = code(() => vms.engine.createVm({ command: ["sleep", "1000"] }, { deadline }));
      await Bun.sleep(afterMs);
      controller.abort();
      expect(await starting).toBe("cancelled");
      expect(vms.engine.listVms()).toEqual([]);
    }
  });
});
