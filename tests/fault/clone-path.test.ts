/** QEMU killed and stopped at every stage of the clone path: a typed error that names the stage, and nothing left. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { FrameType } from "../../src/agent/wire.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { CLONE_STAGES } from "../../src/engine/stages.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, processesMentioning } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { Interposer } from "../support/interposer.ts";

/** Ends of a clone that is killed or stopped while it is made. */
const CODES = ["qemu_exited", "agent_not_ready", "deadline_exceeded", "agent_disconnected"];

/** Bytes with which a frame of a type begins (docs/AGENT-PROTOCOL.md). */
function frameOf(type: number): Buffer {
  return Buffer.of(0xa7, type, 0, 0);
}

describeVms("the clone path", () => {
  describe.each([
    { what: "nothing prepared", path: "cold", processImages: false, untilMs: 120, stepMs: 8 },
    { what: "a process image", path: "image", processImages: true, untilMs: 24, stepMs: 2 },
  ])("with $what", ({ path, processImages, untilMs, stepMs }) => {
    let vms: TestEngine;
    beforeAll(async () => {
      vms = await TestEngine.open({ processImages });
      await vms.run(["true"]);
      const { imageMaker, templates } = Reflect.get(vms.engine, "parts");
      await imageMaker.make(templates.cloneable(vms.engine.listTemplates()[0]?.id));
      vms.markDescriptors();
    });
    afterAll(() => vms?.[Symbol.asyncDispose]());
    afterEach(async () => {
      const { vm, stdout } = await vms.run(["echo", "fine"]);
      expect({ path: vm.clone.path, stdout }).toEqual({ path, stdout: "fine\n" });
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    });

    /** Sends a signal to every QEMU after so many milliseconds. @returns how the request ended. */
    const disturbed = async (signal: "SIGKILL" | "SIGSTOP", afterMs: number, limitMs: number) => {
      const running = vms.engine.createVm({}, { deadline: soon(limitMs) }).then(
        ({ vm }) => vm,
        (error: unknown) => error,
      );
      await Bun.sleep(afterMs);
      for (const pid of processesMentioning(`${vms.stateDir}/`).keys()) process.kill(pid, signal);
      return running;
    };
    const expectTyped = (outcome: unknown) => {
      if (!(outcome instanceof MayflyError)) return;
      expect(CODES).toContain(outcome.code);
      expect(["plan", "spawn", "load", "agent", "identity", "starting the command"]).toContain(outcome.stage ?? "none");
    };

    test("killed after any time gives a typed error with its stage", async () => {
      const stages = new Set<string>();
      for (let afterMs = 0; afterMs <= untilMs; afterMs += stepMs) {
        const outcome = await disturbed("SIGKILL", afterMs, 20_000);
        expectTyped(outcome);
        if (outcome instanceof MayflyError) stages.add(outcome.stage ?? "none");
        for (const { id } of vms.engine.listVms()) {
          // On a busy machine QEMU may not have been there yet when it was to be killed: then the VM just runs.
          const ended = await vms.engine.waitVm(id, AbortSignal.timeout(2_000)).catch(() => undefined);
          if (ended !== undefined) expect(ended).toMatchObject({ state: "failed", error: { code: "qemu_exited" } });
          await vms.remove(id);
        }
      }
      expect([...stages].some((stage) => CLONE_STAGES.some((known) => known === stage))).toBe(true);
    }, 60_000);

    test("stopped after any time ends at the deadline", async () => {
      for (const afterMs of [0, untilMs / 12, untilMs / 6, untilMs / 3]) {
        const begunMs = performance.now();
        const outcome = await disturbed("SIGSTOP", afterMs, 700);
        expectTyped(outcome);
        if (outcome instanceof MayflyError) expect(performance.now() - begunMs).toBeLessThan(3_000);
        for (const { id } of vms.engine.listVms()) await vms.remove(id);
      }
    }, 60_000);
  });

  for (const kind of ["blocked", "warm"] as const) {
    describe(`with a ${kind} one`, () => {
      let vms: TestEngine;
      beforeAll(async () => {
        vms = await TestEngine.open({ pool: { blocked: 0, warm: 0, parent: false, [kind]: 1 } });
        await vms.run(["true"]);
        await vms.poolsFull();
        vms.markDescriptors();
      });
      afterAll(() => vms?.[Symbol.asyncDispose]());
      afterEach(async () => {
        await vms.poolsFull();
        expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
        await vms.poolsFull();
        expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
      });

      test("that was killed unnoticed a moment ago is replaced", async () => {
        const [pid = 0] = await vms.processes(1);
        process.kill(pid, "SIGKILL");
        expect((await vms.run(["echo", "served"])).stdout).toBe("served\n");
      });

      test("that is stopped ends at the deadline", async () => {
        const [pid = 0] = await vms.processes(1);
        process.kill(pid, "SIGSTOP");
        const error = await rejection(vms.run(["true"], {}, 700));
        expect(CODES).toContain(error.code);
        expect(CLONE_STAGES.some((stage) => stage === error.stage)).toBe(true);
      });
    });
  }

  describe("with a man in the middle of the agent's channel", () => {
    let vms: TestEngine;
    beforeAll(async () => {
      vms = await TestEngine.open({ pool: { blocked: 1, warm: 0, parent: false } });
      await vms.run(["true"]);
      await vms.poolsFull();
      vms.markDescriptors();
    });
    afterAll(() => vms?.[Symbol.asyncDispose]());
    afterEach(async () => {
      await vms.poolsFull();
      expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
      await vms.poolsFull();
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    });

    const interpose = async () => {
      const [pid = 0] = await vms.processes(1);
      const [slot = ""] = readdirSync(join(vms.runDir, "q"));
      return { pid, middle: new Interposer(join(vms.runDir, "q", slot, "agent")) };
    };

    for (const { stage, type } of [
      { stage: "the hello", type: FrameType.hello },
      { stage: "the identity", type: FrameType.identity },
      { stage: "the thaw", type: FrameType.thaw },
    ]) {
      test(`killed at ${stage} is replaced by a fresh one`, async () => {
        const { pid, middle } = await interpose();
        using _middle = middle;
        let seen = false;
        middle.onHost = (bytes) => {
          if (seen || !bytes.includes(frameOf(type))) return;
          seen = true;
          process.kill(pid, "SIGKILL");
        };
        const { stdout, vm } = await vms.run(["echo", "served"]);
        expect({ seen, stdout, path: vm.clone.path }).toEqual({ seen: true, stdout: "served\n", path: "cold" });
      });

      test(`stopped at ${stage} ends at the deadline, and says at which stage`, async () => {
        const { pid, middle } = await interpose();
        using _middle = middle;
        middle.onHost = (bytes) => {
          if (bytes.includes(frameOf(type))) process.kill(pid, "SIGSTOP");
        };
        const error = await rejection(vms.run(["true"], {}, 800));
        expect(CODES).toContain(error.code);
        expect(["agent", "identity"]).toContain(error.stage ?? "none");
      });
    }

    test("killed at the first command is an error, since the command may have run", async () => {
      const { pid, middle } = await interpose();
      using _middle = middle;
      middle.onHost = (bytes) => {
        if (bytes.includes(frameOf(FrameType.exec))) process.kill(pid, "SIGKILL");
      };
      const error = await rejection(vms.run(["true"]));
      expect({ code: error.code, stage: error.stage }).toEqual({ code: "qemu_exited", stage: "starting the command" });
    });

    test("that says nothing is an agent that is not ready", async () => {
      const { middle } = await interpose();
      using _middle = middle;
      middle.stall();
      const error = await rejection(vms.run(["true"], {}, 600));
      expect({ code: error.code, stage: error.stage }).toEqual({ code: "agent_not_ready", stage: "agent" });
    });

    test("that breaks the protocol is a violation, and is not tried again", async () => {
      const { middle } = await interpose();
      using _middle = middle;
      middle.onGuest = (bytes) => {
        const forged = Buffer.from(bytes);
        forged.fill(0xff, Math.min(forged.length, 40));
        return forged;
      };
      const error = await rejection(vms.run(["true"], {}, 5_000));
      expect(["agent_protocol_violation", "agent_not_ready"]).toContain(error.code);
    });
  });
});
