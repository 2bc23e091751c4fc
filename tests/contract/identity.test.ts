/** The clone contract: what a clone has of its own before anything of it runs. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

/** What a clone says of itself. */
const SCRIPT = `
cat /etc/machine-id
cat /proc/sys/kernel/random/uuid
head -c 32 /dev/urandom | sha256sum
head -c 32 /dev/random | sha256sum
hostname
date +%s
cut -d' ' -f1 /proc/uptime
`;
const FIELDS = ["machineId", "uuid", "urandom", "random", "hostname", "seconds", "uptime"] as const;
type Own = Record<(typeof FIELDS)[number], string>;

describeVms("a clone's identity", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open();
    await vms.run(["true"]);
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => expect(await vms.leftBehind()).toEqual(NOTHING_LEFT));

  const own = async (request = {}): Promise<Own> => {
    const lines = (await vms.script(SCRIPT, request)).split("\n");
    expect(lines.length).toBe(FIELDS.length);
    return Object.fromEntries(FIELDS.map((field, index) => [field, lines[index] ?? ""])) as Own;
  };

  test("differs in machine id, random numbers and name", async () => {
    const clones = [await own(), await own(), await own()];
    for (const field of ["machineId", "uuid", "urandom", "random", "hostname"] as const) {
      expect(new Set(clones.map((clone) => clone[field])).size).toBe(clones.length);
    }
    for (const { machineId, uuid } of clones) {
      expect(machineId).toMatch(/^[0-9a-f]{32}$/);
      expect(uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
  });

  test("has the host name of the request, or one made of the VM's name", async () => {
    expect((await own({ hostname: "some-host" })).hostname).toBe("some-host");
    expect((await own({ name: "a_name.with.dots" })).hostname).toBe("a-name-with-dots");
  });

  test("has the right time", async () => {
    const before = Math.floor(Date.now() / 1000) - 1;
    const { seconds } = await own();
    expect(Number(seconds)).toBeGreaterThanOrEqual(before);
    expect(Number(seconds)).toBeLessThanOrEqual(Date.now() / 1000 + 1);
  });

  test("goes on counting from its template, without a jump, however old that is", async () => {
    const template = vms.engine.listTemplates()[0];
    const [first, second] = [await own(), await own()];
    // The parent ran for as long as it took to build, under its own clock; each clone has run for less than 10 s.
    const parentS = (template?.buildMs ?? 0) / 1000;
    for (const { uptime } of [first, second]) {
      expect(Number(uptime)).toBeGreaterThan(0.3);
      expect(Number(uptime)).toBeLessThan(parentS + 10);
    }
  });

  test("keeps time while it runs", async () => {
    const vm = await vms.start();
    const read = async () => {
      const beforeS = performance.now() / 1000;
      const answer = await vms.shell(vm.id, "cut -d' ' -f1 /proc/uptime; date +%s");
      const [uptime = Number.NaN, seconds = Number.NaN] = answer.split("\n").map(Number);
      return { uptime, seconds, beforeS, afterS: performance.now() / 1000 };
    };
    const first = await read();
    await vms.shell(vm.id, "sleep 2");
    const second = await read();
    const passedS = second.uptime - first.uptime;
    expect(passedS).toBeGreaterThan(second.beforeS - first.afterS - 0.1);
    expect(passedS).toBeLessThan(second.afterS - first.beforeS + 0.1);
    expect(Math.abs(second.seconds - Date.now() / 1000)).toBeLessThan(2 + second.afterS - second.beforeS);
    await vms.remove(vm.id);
  });

  test("is complete before the main process' first instruction", async () => {
    // Read by the process itself, at its start, and again later: nothing changes under it.
    const script = "cat /etc/machine-id; hostname; sleep 0.3; cat /etc/machine-id; hostname";
    const lines = (await vms.script(script, { hostname: "early" })).split("\n");
    expect(lines.slice(2)).toEqual(lines.slice(0, 2));
    expect(lines[1]).toBe("early");
  });
});
