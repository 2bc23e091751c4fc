/** The daemon killed while it builds the template of an application: nothing is left of it, and the next build is whole. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { BuildTemplateRequest } from "../../src/contract/api.ts";
import { serviceTarball } from "../support/application.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, processesMentioning } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

const REQUEST: BuildTemplateRequest = {
  name: "web",
  image: "service",
  command: ["/bin/main"],
  ready: { kind: "log", pattern: "^serving" },
};

describeVms("a daemon that is killed while it builds", () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.images.import({ name: "service", path: await serviceTarball() });
  }, 60_000);
  afterAll(() => daemon?.[Symbol.asyncDispose]());

  test.each(["copying", "starting", "waiting", "trimming", "letting", "saving"])(
    "at the step %s",
    async (step) => {
      const before = readdirSync(join(daemon.stateDir, "templates"));
      const reached = Promise.withResolvers<void>();
      const onProgress = (said: string) => void (said.startsWith(step) && reached.resolve());
      const building = daemon.client.templates.build(REQUEST, { onProgress }).catch((error: unknown) => error);
      await Promise.race([reached.promise, building]);
      await daemon.kill();
      expect(await building).toBeInstanceOf(Error);
      await daemon.begin();
      expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
      expect(readdirSync(join(daemon.stateDir, "templates"))).toEqual(before);
      expect([...processesMentioning(`${daemon.stateDir}/templates/`)]).toEqual([]);
    },
    60_000,
  );

  test("at no step: then there is a template", async () => {
    const template = await daemon.client.templates.build(REQUEST);
    const vm = await daemon.client.vms.create({ template: "web", name: "web1" });
    expect(vm.templateId).toBe(template.id);
    await daemon.kill();
    await daemon.begin();
    const { stdout } = await daemon.client.vms.execToEnd("web1", {
      command: ["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"],
    });
    expect(Buffer.from(stdout, "base64").toString()).toBe("hello\n");
    await daemon.client.vms.remove("web1", { force: true });
    expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
  }, 60_000);
});
