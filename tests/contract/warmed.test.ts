/** Clones of a template with an application: it runs in each from the start, and each is itself. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { ClonePath, CreateVmRequest, PoolRequest, Vm } from "../../src/contract/api.ts";
import { askService, buildService, serviceImage } from "../support/application.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

const KINDS: readonly { path: ClonePath; pool: PoolRequest }[] = [
  { path: "cold", pool: { blocked: 0, warm: 0 } },
  { path: "pool", pool: { blocked: 1, warm: 0, parent: false } },
  { path: "warm", pool: { blocked: 0, warm: 1 } },
];

/** Appends what it finds to /tmp/hooks, and whether the application goes on meanwhile: its ticks are counted in /tmp/ticks. */
const HOOK = `#!/bin/sh
[ -n "$MAYFLY_REHEARSAL" ] && echo "$(basename $0) $(hostname) $TOKEN" >> /tmp/rehearsals && exit
before=$(cat /tmp/ticks); sleep 0.3; after=$(cat /tmp/ticks)
[ "$before" = "$after" ] && state=frozen || state=running
echo "$(basename $0) $(hostname) $state user=$(id -u) greeting=$GREETING token=$TOKEN" >> /tmp/hooks
`;
/** Serves, and counts in a file that a hook can read while it is frozen. */
const TICKING = `#!/bin/sh
httpd -p 8080 -h /www
n=0
echo serving on 8080
while :; do n=$((n + 1)); echo $n > /tmp/ticks; sleep 0.05; done
`;

const text64 = (text: string) => Buffer.from(text).toString("base64");

describeVms("clones of an application's template", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open();
    const image = await serviceImage(vms);
    await buildService(vms, { name: "web", image });
    const more = {
      "bin/ticking": TICKING,
      "etc/mayfly/post-clone.d/20-second": HOOK,
      "etc/mayfly/post-clone.d/10-first": HOOK,
      "etc/mayfly/post-clone.d/.ignored": "no hook",
    };
    await buildService(vms, {
      name: "hooked",
      image: await serviceImage(vms, more),
      command: ["/bin/ticking"],
      user: "alice",
      env: { GREETING: "built" },
      postClone: [
        "/bin/sh",
        "-c",
        '[ -n "$MAYFLY_REHEARSAL" ] || echo "own $(hostname) greeting=$GREETING" >> /tmp/hooks; exit ${CODE:-0}',
      ],
      hookTimeoutMs: 5_000,
    });
    await vms.remove((await vms.start({ template: "web" })).id);
    vms.markDescriptors();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    for (const name of ["web", "hooked"]) await vms.engine.resizePool(name, { blocked: 0, warm: 0 });
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const logsOf = async (vm: Vm) => {
    const parts = { 1: "", 2: "" };
    const chunks = vms.engine.logs(vm.id, { follow: false, signal: AbortSignal.timeout(5_000) });
    for await (const { channel, chunk } of chunks) parts[channel] += Buffer.from(chunk).toString();
    return parts;
  };

  for (const { path, pool } of KINDS) {
    describe(`started by the ${path} path`, () => {
      const start = async (request: CreateVmRequest) => {
        await vms.engine.resizePool(request.template ?? "", pool);
        await vms.poolsFull();
        const vm = await vms.start(request);
        expect(vm.clone.path).toBe(path);
        return vm;
      };
      test("answer at once, with a host name and random numbers of their own", async () => {
        const clones = [await start({ template: "web" }), await start({ template: "web" })];
        const answers = await Promise.all(clones.map((vm) => askService(vms, vm)));
        expect(answers.map(({ host }) => host)).toEqual(clones.map(({ hostname }) => hostname));
        expect(new Set(answers.map(({ random }) => random)).size).toBe(2);
        expect(answers.map(({ asked }) => asked)).toEqual(["1", "1"]);
        // What the application itself drew before it was saved is the template's.
        const drawn = await Promise.all(clones.map((vm) => vms.shell(vm.id, "cat /tmp/drawn")));
        expect(new Set(drawn).size).toBe(1);
        // So that generators in user space take new entropy, the application finds hours passed since it was saved.
        const age = await vms.shell(clones[0]?.id ?? "", "echo $(($(date +%s) - $(stat -c %Y /tmp/drawn)))");
        expect(Number(age)).toBeGreaterThan(6 * 3600 - 60);
        const ids = await Promise.all(clones.map((vm) => vms.shell(vm.id, "cat /etc/machine-id")));
        expect(new Set(ids).size).toBe(2);
      });

      test("go on with the main process: its output from now on, its signals, its exit code", async () => {
        const vm = await start({ template: "web", name: "one", stopGraceMs: 5_000 });
        expect(vm.command).toEqual(["/bin/main"]);
        await vms.engine.killVm(vm.id, 10, soon());
        await vms.shell(vm.id, "until [ -e /tmp/drawn ]; do sleep 0.1; done");
        const stopped = await vms.engine.stopVm(vm.id, 5_000, soon());
        expect(stopped).toMatchObject({ state: "exited", exitCode: 7, error: null });
        expect(await logsOf(vm)).toEqual({ 1: "asked on one\nending on one\n", 2: "loud\n" });
      });

      test("run their hooks in order, as the application's user, before it goes on", async () => {
        const vm = await start({
          template: "hooked",
          env: { GREETING: "cloned", MORE: "a b" },
          secrets: { TOKEN: text64("s3cret") },
        });
        const lines = (await vms.shell(vm.id, "cat /tmp/hooks")).split("\n");
        const common = `${vm.hostname} frozen user=1000 greeting=cloned token=s3cret`;
        expect(lines).toEqual([`10-first ${common}`, `20-second ${common}`, `own ${vm.hostname} greeting=cloned`]);
        expect((await askService(vms, vm))["hooks"]).toStartWith("10-first");
        // They were rehearsed when the template was built, before the application was asked for anything and when it was frozen, and
        // once more in a warm clone: without anything of a request.
        const rehearsed = (await vms.shell(vm.id, "cat /tmp/rehearsals")).split("\n").map((line) => line.trim());
        const again = ["10-first m", "20-second m"];
        const first = ["10-first hooked", "20-second hooked"];
        expect(rehearsed).toEqual([...first, ...again, ...(path === "warm" ? again : [])]);
        expect(
          await vms.shell(vm.id, "a=$(cat /tmp/ticks); sleep 0.3; b=$(cat /tmp/ticks); [ $b -gt $a ] && echo on"),
        ).toBe("on");
      });
    });
  }

  test("get secrets and an environment in files that only the application's user reads", async () => {
    const secrets = { "db.key": Buffer.from([0, 255, 10]).toString("base64"), TOKEN: text64("s3cret") };
    const vm = await vms.start({ template: "hooked", env: { A: "1 2", B: "x=y" }, secrets });
    const stat =
      "stat -c '%n %a %u %g' /run/secrets/* /run/mayfly/environment; od -An -tx1 /run/secrets/db.key; cat /run/mayfly/environment";
    expect((await vms.shell(vm.id, stat)).split("\n").map((line) => line.trim())).toEqual([
      "/run/secrets/TOKEN 400 1000 1000",
      "/run/secrets/db.key 400 1000 1000",
      "/run/mayfly/environment 400 1000 1000",
      "00 ff 0a",
      "A=1 2",
      "B=x=y",
    ]);
    expect(await vms.shell(vm.id, "cat /run/secrets/TOKEN", { user: "alice" })).toBe("s3cret");
    expect((await vms.exec(vm.id, ["cat", "/run/secrets/TOKEN"], { user: "1234" })).exitCode).not.toBe(0);
    const next = await vms.start({ template: "hooked" });
    expect(
      await vms.shell(next.id, "ls /run/secrets; cat /run/mayfly/environment; grep -c s3cret /tmp/hooks || true"),
    ).toBe("0");
  });

  test("are destroyed when a hook fails, with the end of its output", async () => {
    expect(vms.engine.getTemplate("hooked").application?.rehearsal).toBeNull();
    const failed = await rejection(vms.start({ template: "hooked", env: { CODE: "3" } }));
    expect([failed.code, failed.stage]).toEqual(["hook_failed", "identity"]);
    expect(failed.message).toContain("ended with 3");
    expect(vms.engine.listVms()).toEqual([]);
  });

  test("cannot be told what was decided when the template was built", async () => {
    const refused = async (request: CreateVmRequest) => {
      const error = await rejection(vms.start({ template: "web", ...request }));
      expect(error.code).toBe("invalid_argument");
      return error.message;
    };
    expect(await refused({ command: ["sh"], readOnly: true })).toContain("command, readOnly");
    expect(await refused({ memoryBytes: 512 << 20 })).toContain("128 MiB");
    expect(await refused({ cpus: 2 })).toContain("1 CPUs");
    expect(await refused({ env: { A: "1\n2" } })).toContain("more than one line");
    expect((await rejection(vms.start({ template: "nobody" }))).code).toBe("template_not_found");
  });

  test("may have less than their template, and run other commands beside the application", async () => {
    const vm = await vms.start({ template: "hooked", cpus: 0.5, env: { GREETING: "hi" } });
    expect(vm.cpus).toBe(0.5);
    expect(await vms.shell(vm.id, "id -u; echo $GREETING; pwd; hostname")).toBe(`1000\nhi\n/\n${vm.hostname}`);
    // One that starts no processes itself: it would end with the first that it cannot start.
    const few = await vms.start({ template: "web", pidsLimit: 20 });
    expect((await vms.exec(few.id, ["sh", "-c", "for i in $(seq 30); do sleep 5 & done; wait"])).stderr).toContain(
      "fork",
    );
  });

  test("end with their time limit, and with a removal", async () => {
    const vm = await vms.start({ template: "web", timeoutMs: 200 });
    expect(await vms.engine.waitVm(vm.id, AbortSignal.timeout(10_000))).toMatchObject({ exitCode: 124 });
    const other = await vms.start({ template: "web", autoRemove: true });
    await vms.engine.killVm(other.id, 9, soon());
    await vms.engine.waitVm(other.id, AbortSignal.timeout(10_000)).catch(() => undefined);
    expect(vms.engine.listVms().map(({ id }) => id)).toEqual([vm.id]);
  });
});
