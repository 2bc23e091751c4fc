/** Fifty VMs of one warmed web service at once: each answers over a port of the host, with its own host name and its own random number. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Vm } from "../../src/contract/api.ts";
import { buildService, serviceImage } from "../support/application.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

const MANY = 50;
/** On a machine with two cores that does other things as well. */
const LIMIT_MS = 300_000;

describeVms("fifty VMs of one warmed service", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open();
    await buildService(vms, {
      name: "web",
      image: await serviceImage(vms),
      ready: { kind: "http", port: 8080, path: "/index.html" },
      warmUp: [{ kind: "http", port: 8080, path: "/cgi-bin/info" }],
    });
    vms.markDescriptors();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());

  const answerOf = async ({ ports: [port] }: Vm): Promise<Record<string, string>> => {
    const answer = await fetch(`http://127.0.0.1:${port?.hostPort}/cgi-bin/info`, {
      signal: AbortSignal.timeout(60_000),
    });
    expect(answer.status).toBe(200);
    const parts = (await answer.text()).trim().split(" ");
    return Object.fromEntries(parts.map((part) => part.split("=") as [string, string]));
  };

  /** One after another: fifty that are emulated at once answer late. */
  const ask = async (started: readonly Vm[]) => {
    const answers: Record<string, string>[] = [];
    for (const vm of started) answers.push(await answerOf(vm));
    return answers;
  };

  test(
    "each is itself",
    async () => {
      // Some of them come from the pool, warmed and asked before.
      await vms.engine.resizePool("web", { blocked: 2, warm: 4 });
      await vms.poolsFull();
      const start = async (index: number) => {
        const request = {
          template: "web",
          name: `web-${index}`,
          ports: [{ hostIp: "127.0.0.1", hostPort: 0, guestPort: 8080 }],
        };
        const { vm } = await vms.engine.createVm(request, { deadline: soon(LIMIT_MS) });
        return vm;
      };
      const started = await Promise.all(Array.from({ length: MANY }, (_, index) => start(index)));
      expect(new Set(started.map(({ clone }) => clone.path))).toEqual(new Set(["warm", "copy"]));
      const answers = await ask(started);
      expect(answers.map((answer) => answer["host"])).toEqual(started.map(({ name }) => name));
      expect(new Set(answers.map((answer) => answer["random"])).size).toBe(MANY);
      for (const answer of answers) expect(answer["random"]).toMatch(/^[0-9a-f]{16}$/);
      const again = await ask(started);
      expect(new Set([...answers, ...again].map((answer) => answer["random"])).size).toBe(2 * MANY);
      await vms.engine.resizePool("web", { blocked: 0, warm: 0 });
      await Promise.all(started.map(({ id }) => vms.remove(id)));
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    },
    LIMIT_MS,
  );
});
