/** Building templates of applications: once, whole or not at all, and again when it is asked for. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { join } from "node:path";
import type { BuildTemplateRequest } from "../../src/contract/api.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { buildService, serviceImage, serviceTarball } from "../support/application.ts";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms, hostArtifacts } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("the template of an application", () => {
  let vms: TestEngine;
  let image: string;

  beforeAll(async () => {
    vms = await TestEngine.open();
    image = await serviceImage(vms);
    await vms.run(["true"]);
    vms.markDescriptors();
  }, 60_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const names = () => vms.engine.listTemplates().map(({ name }) => name);
  const shell = (script: string) => ["/bin/sh", "-c", script];

  test("says what it is made of, is sound, and readable by nobody but its tenant's group", async () => {
    const steps: string[] = [];
    const request: BuildTemplateRequest = {
      name: "web",
      image,
      command: ["/bin/main"],
      env: { A: "b" },
      ready: { kind: "exec", command: shell("wget -q -O - http://127.0.0.1:8080/ | grep -q hello") },
      warmUp: [{ kind: "exec", command: shell("wget -q -O /dev/null http://127.0.0.1:8080/cgi-bin/info") }],
      warmUpTimes: 3,
      memoryBytes: 120 << 20,
    };
    const template = await vms.engine.buildTemplate(request, {
      deadline: soon(60_000),
      onProgress: (step) => steps.push(step),
    });
    const { name: _name, ...recipe } = request;
    expect(template).toMatchObject({
      name: "web",
      compatible: true,
      differences: [],
      shape: { memoryMiB: 128, vcpus: 1 },
      pool: null,
      application: { image, command: ["/bin/main"], memoryBytes: 120 << 20, user: "0:0", hooks: [], recipe },
    });
    expect(template.application?.readyMs).toBeGreaterThan(0);
    expect(template.application?.warmUpMs).toBeGreaterThan(0);
    expect(template.memory.allocatedBytes).toBeLessThan(120 << 20);
    expect(steps.filter((step) => step.startsWith("warming"))).toHaveLength(3);
    expect(await vms.engine.verifyTemplate("web", soon())).toMatchObject({ ok: true, problems: [] });
    const mode = (file: string) => {
      const { mode, uid, gid } = statSync(join(vms.stateDir, "templates", template.id, file));
      return `${(mode & 0o7777).toString(8)} ${uid} ${gid}`;
    };
    expect([mode("memory"), mode("device-state"), mode("manifest.json")]).toEqual([
      "440 0 900000",
      "400 0 0",
      "400 0 0",
    ]);
    const vm = await vms.start({ template: "web" });
    expect(await vms.shell(vm.id, "cat /tmp/asked | wc -l; cat /sys/fs/cgroup/memory.max")).toBe(`3\n${120 << 20}`);
    expect(await vms.shell(vm.id, "tr '\\0' '\\n' < /proc/1/environ | grep ^A=")).toBe("A=b");
  });

  test("is found ready and warmed up over connections, none of which is left in it", async () => {
    const page = { kind: "http", port: 8080, path: "/cgi-bin/info" } as const;
    const request = { name: "reached", image, warmUp: [page], warmUpTimes: 5 };
    const { application } = await buildService(vms, { ...request, ready: page });
    expect(application?.ready).toEqual(page);
    const vm = await vms.start({ template: "reached" });
    const connections = "cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"01\"' | wc -l";
    expect(await vms.shell(vm.id, `wc -l < /tmp/asked; ${connections}`)).toMatch(/^[67]\n0$/);
    await vms.remove(vm.id);
    await buildService(vms, { ...request, ready: { kind: "tcp", port: 8080 } });
    const wrong = { ...request, ready: { kind: "http", port: 8080, path: "/missing" }, readyTimeoutMs: 1_000 } as const;
    // Long enough for a service on a busy machine to answer at all.
    const missing = await rejection(buildService(vms, { ...wrong, name: "lost", readyTimeoutMs: 8_000 }));
    expect([missing.code, missing.message]).toEqual([
      "application_not_ready",
      expect.stringContaining("answered with 404"),
    ]);
    const closed = await rejection(buildService(vms, { ...wrong, name: "lost", ready: { kind: "tcp", port: 1 } }));
    expect(closed.message).toContain("ECONNREFUSED");
    const failing = await rejection(
      buildService(vms, { ...request, name: "lost", warmUp: [{ kind: "http", port: 8080, path: "/missing" }] }),
    );
    expect(failing.message).toContain("the warm-up failed: GET http://:8080/missing was answered with 404");
    await vms.engine.removeTemplate("reached", { force: false });
  });

  test("is built though its hooks fail in their rehearsal, and says so", async () => {
    const postClone = shell('echo needs $NEEDED >&2; [ -n "$NEEDED" ] || exit 4');
    const { application } = await buildService(vms, { name: "needy", image, postClone });
    expect(application?.rehearsal).toContain("ended with 4; its output ends with: needs");
    await vms.engine.resizePool("needy", { warm: 1, blocked: 0 });
    await vms.poolsFull();
    expect((await rejection(vms.start({ template: "needy" }))).code).toBe("hook_failed");
    expect((await vms.start({ template: "needy", env: { NEEDED: "this" } })).state).toBe("running");
    await vms.engine.removeTemplate("needy", { force: true });
  });

  test("is not what VMs of its size are cloned from, nor counted among those that are", async () => {
    const vm = await vms.start();
    expect(vm.templateId).not.toBe(vms.engine.getTemplate("web").id);
  });

  test("is there already when the same is asked for, and built again by its own recipe when forced or changed", async () => {
    const built: string[] = [];
    const stop = vms.engine.subscribe(({ type, id }) => type === "template.built" && built.push(id));
    const ask = (request: BuildTemplateRequest) => vms.engine.buildTemplate(request, { deadline: soon(60_000) });
    const before = vms.engine.getTemplate("web");
    expect((await ask({ name: "web" })).id).toBe(before.id);
    expect((await ask({ ...before.application?.recipe, name: "web", pool: { warm: 0, blocked: 1 } })).id).toBe(
      before.id,
    );
    expect(built).toEqual([]);
    await vms.poolsFull();
    const forced = await ask({ name: "web", force: true });
    const recipe = before.application?.recipe;
    if (recipe === undefined) throw new Error("there is no recipe");
    expect(forced.application?.recipe).toEqual(recipe);
    expect([forced.pool, built]).toEqual([{ warm: 0, blocked: 1 }, [forced.id]]);
    const changed = await ask({ name: "web", env: { A: "c" }, pool: { warm: 0, blocked: 0 } });
    expect(changed.application?.recipe).toEqual({ ...recipe, env: { A: "c" } });
    // What had the name before is gone, with its pool.
    expect(names().filter((name) => name === "web")).toHaveLength(1);
    expect(vms.engine.listTemplates().map(({ id }) => id)).not.toContain(before.id);
    stop();
  });

  test("that is replaced stays for the VMs that run on it, then goes with a prune", async () => {
    const vm = await vms.start({ template: "web" });
    const old = vms.engine.getTemplate("web").id;
    const { id } = await vms.engine.buildTemplate({ name: "web", force: true }, { deadline: soon(60_000) });
    expect(vms.engine.getTemplate(old)).toMatchObject({ id: old, name: null });
    expect((await vms.engine.prune(soon())).removed).toEqual([]);
    expect(await vms.shell(vm.id, "wget -q -O - http://127.0.0.1:8080/")).toBe("hello");
    await vms.remove(vm.id);
    expect((await vms.engine.prune(soon())).removed).toEqual([old]);
    expect(vms.engine.getTemplate("web").id).toBe(id);
  });

  test("is not removed while clones run, unless forced; they go on, for the next engine too", async () => {
    await buildService(vms, { name: "gone", image });
    const vm = await vms.start({ template: "gone", name: "survivor", stopGraceMs: 5_000 });
    expect((await rejection(vms.engine.removeTemplate("gone", { force: false }))).code).toBe("resource_in_use");
    await vms.engine.removeTemplate("gone", { force: true });
    expect((await rejection(vms.start({ template: "gone" }))).code).toBe("template_not_found");
    vms = await vms.reopen();
    expect(await vms.shell(vm.id, "wget -q -O - http://127.0.0.1:8080/")).toBe("hello");
    // Of two signals that come at once, the service would answer the second one only.
    const output = new Output();
    vms.engine.attach(vm.id, output, { logs: true });
    await vms.engine.killVm(vm.id, 10, soon());
    await output.has("asked on survivor");
    expect((await vms.engine.stopVm(vm.id, 5_000, soon())).exitCode).toBe(7);
    let text = "";
    const chunks = vms.engine.logs(vm.id, { follow: false, signal: AbortSignal.timeout(5_000) });
    for await (const { channel, chunk } of chunks) if (channel === 1) text += Buffer.from(chunk).toString();
    expect(text).toBe("asked on survivor\nending on survivor\n");
    vms.markDescriptors();
  });

  test("is built once for all who ask, and not with other options meanwhile", async () => {
    const [one, two, other] = await Promise.allSettled([
      buildService(vms, { name: "twice", image }),
      buildService(vms, { name: "twice", image }),
      buildService(vms, { name: "twice", image, env: { A: "1" } }),
    ]);
    expect(one.status === "fulfilled" && two.status === "fulfilled" && one.value.id === two.value.id).toBe(true);
    expect(other.status === "rejected" && other.reason.code).toBe("resource_in_use");
    expect(names().filter((name) => name === "twice")).toHaveLength(1);
    await vms.engine.removeTemplate("twice", { force: false });
  });

  test("keeps its image, from the beginning of its build on", async () => {
    const own = await serviceImage(vms);
    const refused = async () => (await rejection(vms.engine.removeImage(own))).message;
    const building = buildService(vms, { name: "holder", image: own });
    expect(await refused()).toContain(": template holder needs it");
    await building;
    expect(await refused()).toContain(": template holder needs it");
    // Another image under its name does not take it away.
    const { digest } = vms.engine.getImage(own);
    const other = await serviceTarball({ "etc/other": "contents\n" });
    await vms.engine.importImage({ name: own, path: other }, { deadline: soon() });
    expect(vms.engine.getImage(own).digest).not.toBe(digest);
    const vm = await vms.start({ template: "holder" });
    expect(await vms.shell(vm.id, "ls /etc/other 2>/dev/null; wget -q -O - http://127.0.0.1:8080/")).toBe("hello");
    await vms.remove(vm.id);
    // Built again it is of what the name means now.
    const again = await vms.engine.buildTemplate({ name: "holder" }, { deadline: soon(60_000) });
    expect(again.application?.digest).toBe(vms.engine.getImage(own).digest);
    await vms.engine.removeTemplate("holder", { force: false });
    await vms.engine.removeImage(own);
  });

  test("keeps its pool over restarts", async () => {
    await vms.engine.resizePool("web", { warm: 1, blocked: 1 });
    vms = await vms.reopen();
    expect(vms.engine.getTemplate("web").pool).toEqual({ warm: 1, blocked: 1 });
    const { id } = vms.engine.getTemplate("web");
    expect(vms.engine.info().pools).toMatchObject([{ templateId: id, warm: 1, blocked: 1 }]);
    expect((await vms.start({ template: "web" })).clone.path).toBe("warm");
    await vms.engine.resizePool("web", { warm: 0, blocked: 0 });
    vms.markDescriptors();
  });

  test("that does not fit the host any more says what differs and how it is built again", async () => {
    const artifacts = hostArtifacts();
    const kernel = { ...artifacts.kernel, sha256: "0".repeat(64) };
    vms = await vms.reopen({ artifacts: { ...artifacts, kernel } });
    const error = await rejection(vms.start({ template: "web" }));
    expect(error.code).toBe("template_incompatible");
    expect(error.message).toContain("kernelSha256");
    expect(error.details.remedy).toBe("mayfly template build --force web");
    expect(vms.engine.getTemplate("web").differences).toHaveLength(1);
    // Its recipe is in it: a prune does not take it.
    await vms.engine.prune(soon());
    expect(names()).toContain("web");
    const again = await vms.engine.buildTemplate({ name: "web" }, { deadline: soon(60_000) });
    expect(again).toMatchObject({ compatible: true, differences: [] });
    expect((await vms.start({ template: "web" })).templateId).toBe(again.id);
    vms = await vms.reopen();
    // The prune has taken the template of the size.
    await vms.engine.buildTemplate({}, { deadline: soon() });
    vms.markDescriptors();
  });

  test("that cannot be is refused, with the end of what the application said, and nothing is left", async () => {
    const before = vms.engine.listTemplates().map(({ id }) => id);
    const refused = async (request: BuildTemplateRequest) => {
      const error = await rejection(buildService(vms, { name: "bad", image, ...request }));
      expect(vms.engine.listTemplates().map(({ id }) => id)).toEqual(before);
      return error;
    };
    const dying = await refused({ command: shell("echo dying >&2; exit 3") });
    expect([dying.code, dying.details["outputTail"]]).toEqual(["application_not_ready", "dying\n"]);
    expect(dying.message).toContain("ended with code 3");
    const never = await refused({ command: shell("echo half; sleep 100"), readyTimeoutMs: 1_000 });
    expect([never.code, never.message]).toEqual(["application_not_ready", expect.stringContaining("half")]);
    const weak = await refused({ warmUp: [{ kind: "exec", command: shell("echo no; exit 9") }] });
    expect(weak.message).toContain("ended with 9");
    const killer = await refused({ warmUp: [{ kind: "exec", command: shell("kill -TERM 1; sleep 10") }] });
    expect([killer.code, killer.message]).toEqual([
      "application_not_ready",
      expect.stringContaining("ended with code 7"),
    ]);
    expect((await refused({ ready: { kind: "log", pattern: "(" } })).code).toBe("invalid_argument");
    expect((await refused({ ready: { kind: "exec", command: ["/bin/none"] } })).code).toBe("command_not_found");
    expect((await refused({ command: ["/bin/none"] })).code).toBe("command_not_found");
    expect((await refused({ user: "nobody-here" })).code).toBe("user_not_found");
    expect((await refused({ image: "no-such-image" })).code).toBe("image_not_found");
    expect((await refused({ memoryBytes: 1 << 20 })).code).toBe("memory_too_small");
    const whole = { name: "bad", image };
    const bare = await rejection(vms.engine.buildTemplate(whole, { deadline: soon() }));
    expect([bare.code, bare.message]).toEqual(["invalid_argument", expect.stringContaining("no command")]);
    const nameless = await rejection(vms.engine.buildTemplate({ image, command: ["x"] }, { deadline: soon() }));
    expect(nameless.message).toContain("needs a name");
    const imageless = await rejection(vms.engine.buildTemplate({ name: "x", command: ["x"] }, { deadline: soon() }));
    expect(imageless.message).toContain("needs an image");
    const hookless = await serviceImage(vms, { "etc/mayfly/post-clone.d/readme": "read me" });
    expect((await refused({ image: hookless })).message).toContain("readme of the image is not executable");
  }, 120_000);

  test("build can be cancelled at any step, and ends with its engine", async () => {
    for (const step of ["copying", "starting", "waiting", "trimming", "saving"]) {
      const cancelling = new AbortController();
      const building = vms.engine.buildTemplate(
        { name: "cancelled", image, command: ["/bin/main"], ready: { kind: "log", pattern: "serving" } },
        {
          deadline: Deadline.after(60_000, cancelling.signal),
          onProgress: (said) => {
            if (said.startsWith(step)) cancelling.abort();
          },
        },
      );
      expect([step, (await rejection(building)).code]).toEqual([step, "cancelled"]);
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    }
    const building = rejection(buildService(vms, { name: "cancelled", image }));
    await vms.processes(1);
    vms = await vms.reopen();
    expect((await building).code).toBe("cancelled");
    vms.markDescriptors();
  }, 120_000);
});
