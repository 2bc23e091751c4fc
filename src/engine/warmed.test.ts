import { describe, expect, test } from "bun:test";
import { sampleApplication, sampleManifest } from "../../tests/support/application-part.ts";
import type { CreateVmRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { LoadedTemplate } from "../template/store.ts";
import { hookCommands, planApplication, templateDisks } from "./warmed.ts";

const template = new LoadedTemplate(
  { ...sampleManifest, application: sampleApplication },
  "/memory",
  new Uint8Array(),
  1,
);
const plan = (request: CreateVmRequest) => planApplication(request, template, sampleApplication, "one");
const base64 = (text: string | Uint8Array) => Buffer.from(text).toString("base64");

describe("a clone of an application", () => {
  test("has what the template has, unless the request says otherwise", () => {
    const { sizes, pids, plan: container, files } = plan({});
    expect(sizes).toMatchObject({
      shape: { memoryMiB: 128, vcpus: 1 },
      memoryBytes: 120 << 20,
      cpus: 0.5,
      limited: true,
    });
    expect([pids, files]).toEqual([100, []]);
    expect(container).toMatchObject({
      argv: ["/bin/web", "--port", "8080"],
      stopSignal: 3,
      labels: { a: "b" },
      health: { test: ["CMD", "true"], retries: 2 },
      ports: [],
      defaults: sampleApplication.process,
      user: sampleApplication.user,
    });
    const other = plan({
      cpus: 1,
      memoryBytes: 64 << 20,
      pidsLimit: 5,
      stopSignal: 9,
      labels: { c: "d" },
      publishAll: true,
    });
    expect(other.sizes).toMatchObject({ memoryBytes: 64 << 20, cpus: 1 });
    expect([other.pids, other.plan.stopSignal, other.plan.labels]).toEqual([5, 9, { a: "b", c: "d" }]);
    expect(other.plan.ports).toEqual([{ hostPort: 0, guestPort: 8080 }]);
    expect(plan({ health: { test: ["NONE"] } }).plan.health).toBeUndefined();
  });

  test("is given its environment and secrets as files of the application's user", () => {
    const { files, plan: container } = plan({ env: { B: "1 2", C: "x=y" }, secrets: { "a.key": base64("k") } });
    const owned = { mode: 0o400, uid: 1000, gid: 1000 };
    expect(files).toEqual([
      { path: "/run/secrets/a.key", bytes: Buffer.from("k"), ...owned },
      { path: "/run/mayfly/environment", bytes: Buffer.from("B=1 2\nC=x=y\n"), ...owned },
    ]);
    expect(container.defaults.env).toEqual({ A: "b=c\nd", B: "1 2", C: "x=y" });
  });

  test("runs its hooks as the application's user, with both in the environment", () => {
    const secrets = {
      TOKEN: base64("t0k"),
      "no.name": base64("x"),
      BINARY: base64(new Uint8Array([255, 254])),
      NUL: base64("a\0b"),
      LONG: base64("x".repeat(7000)),
    };
    const { hooks } = plan({ env: { GREETING: "hi", TOKEN: "given" }, secrets });
    expect(hooks?.commands).toEqual([["/etc/mayfly/post-clone.d/10-seed"], ["/bin/sh", "-c", "echo"]]);
    expect(hooks?.limitMs).toBe(10_000);
    expect(hooks?.process).toMatchObject({ uid: 1000, gid: 1000, groups: [4], cwd: "/srv" });
    const env = hooks?.process.env ?? [];
    expect(env).toContain("HOSTNAME=one");
    expect(env).toContain("GREETING=hi");
    // What is said plainly counts.
    expect(env).toContain("TOKEN=given");
    expect(env.some((entry) => /^(no|BINARY|NUL|LONG)/.test(entry))).toBe(false);
    expect(planApplication({ secrets }, template, sampleApplication, "one").hooks?.process.env).toContain("TOKEN=t0k");
  });

  test("gets no more of its secrets as variables than one message holds", () => {
    const secrets = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`S${i}`, base64("x".repeat(5000))]));
    const env = plan({ secrets }).hooks?.process.env ?? [];
    expect(env.filter((entry) => entry.startsWith("S")).length).toBe(5);
    expect(plan({ secrets }).files.length).toBe(20);
  });

  test("runs no hooks where there are none", () => {
    const { hooks: _hooks, recipe, ...rest } = sampleApplication;
    const bare = { ...rest, hooks: [], recipe: { image: recipe.image } };
    expect(planApplication({}, template, bare, "one").hooks).toBeUndefined();
    expect(hookCommands(bare)).toEqual([]);
  });

  test("is refused what is decided, more than there is, and lines that are none", () => {
    expect(() => plan({ command: ["x"], user: "0" })).toThrow("with command, user: its application runs already");
    const remedyOf = (request: CreateVmRequest) => {
      try {
        plan(request);
        return undefined;
      } catch (error) {
        return error instanceof MayflyError ? error.details.remedy : error;
      }
    };
    expect(remedyOf({ user: "0" })).toStartWith("mayfly template build");
    const volumes = [{ source: { volume: "data" }, target: "/data" }];
    expect(remedyOf({ user: "0", volumes })).toStartWith("mayfly run IMAGE");
    expect(() => plan({ tmpfs: [{ target: "/x" }], diskBytes: 1 << 30 })).toThrow("tmpfs, diskBytes");
    expect(plan({ readOnly: false, tmpfs: [], volumes: [] }).sizes.cpus).toBe(0.5);
    expect(() => plan({ memoryBytes: 129 << 20 })).toThrow("it has 128 MiB and 1 CPUs");
    expect(() => plan({ cpus: 2 })).toThrow("it has 128 MiB and 1 CPUs");
    expect(() => plan({ env: { A: "one\ntwo" } })).toThrow("more than one line");
  });
});

test("every QEMU of an application's template has its root", () => {
  expect(templateDisks("/state", template).root?.path).toStartWith("/state/");
  expect(templateDisks("/state", new LoadedTemplate(sampleManifest, "/memory", new Uint8Array(), 1))).toEqual({});
});
