import { describe, expect, test } from "bun:test";
import type { CreateVmRequest, ImageConfig } from "../contract/api.ts";
import { containerExec, mainSpec, planContainer } from "./container-plan.ts";

const accounts = { passwd: "app:x:1000:1000::/home/app:/bin/sh\n", group: "audio:x:29:app\n" };
const plan = (request: CreateVmRequest, config: ImageConfig = {}) =>
  planContainer(request, { config, accounts, fstype: "erofs" });
const targets = (request: CreateVmRequest, config: ImageConfig = {}) =>
  plan(request, config).guest.mounts.map((mount) => `${mount.kind} ${mount.target}`);

describe("the command is docker's combination of both", () => {
  const config = { entrypoint: ["/entry"], cmd: ["serve", "-v"] };
  test.each([
    [{}, ["/entry", "serve", "-v"]],
    [{ command: ["other"] }, ["/entry", "other"]],
    [{ entrypoint: ["/bin/sh"] }, ["/bin/sh"]],
    [{ entrypoint: ["/bin/sh"], command: ["-c", "true"] }, ["/bin/sh", "-c", "true"]],
    [{ entrypoint: [], command: ["ls"] }, ["ls"]],
    [{ entrypoint: [] }, undefined],
  ] as [CreateVmRequest, string[] | undefined][])("%j", (request, argv) => {
    expect(plan(request, config).argv).toEqual(argv);
  });
});

test("what the image says applies, and what the request says goes before it", () => {
  const config = {
    env: ["A=1", "B=2", "PATH=/app", "EMPTY"],
    workingDir: "/srv",
    user: "app",
    stopSignal: "SIGQUIT",
    labels: { from: "image", both: "image" },
  };
  const image = plan({}, config);
  expect(image).toMatchObject({ stopSignal: 3, user: { uid: 1000, gid: 1000, groups: [1000, 29], home: "/home/app" } });
  expect(mainSpec({ ...image, argv: ["x"] }, {}, "host")).toMatchObject({
    argv: ["x"],
    env: ["PATH=/app", "HOSTNAME=host", "HOME=/home/app", "A=1", "B=2", "EMPTY="],
    cwd: "/srv",
    uid: 1000,
    gid: 1000,
    groups: [1000, 29],
    first: true,
    init: false,
    killTree: true,
  });
  const both = plan(
    { env: { B: "3" }, workdir: "/", user: "7:8", stopSignal: 9, labels: { both: "request" }, init: true },
    config,
  );
  expect(both).toMatchObject({
    stopSignal: 9,
    init: true,
    user: { uid: 7, gid: 8 },
    labels: { from: "image", both: "request" },
    defaults: { env: { A: "1", B: "3" }, workdir: "/", user: "7:8", capabilities: String(0xa80425fb) },
  });
});

test("exec takes the container's environment, with its own over it", () => {
  const { defaults, user } = plan({ env: { A: "1", B: "2" }, workdir: "/srv" });
  const spec = containerExec(defaults, user, "h", { env: { B: "3" }, terminal: { rows: 1, columns: 2 } });
  expect(spec).toMatchObject({ cwd: "/srv", terminal: { rows: 1, columns: 2 } });
  expect(spec.env).toContain("B=3");
  expect(spec.env).toContain("TERM=xterm");
  expect(spec.env).not.toContain("B=2");
});

describe("mounts", () => {
  test("what lies above is mounted first; the image's volumes are writable unless something is mounted there", () => {
    const request: CreateVmRequest = {
      tmpfs: [{ target: "/a/b/c" }],
      volumes: [
        { source: { volume: "data" }, target: "/a" },
        { source: { directory: "/etc" }, target: "/a/b" },
      ],
    };
    expect(targets(request, { volumes: ["/a/b/", "/var/lib/x"] })).toEqual([
      "disk /a",
      "disk /a/b",
      "tmpfs /a/b/c",
      "directory /var/lib/x",
    ]);
  });

  test("directories of the host are read-only", () => {
    const { mounts } = plan({ volumes: [{ source: { directory: "/etc" }, target: "/x", readOnly: false }] }).guest;
    expect(mounts).toMatchObject([{ kind: "disk", fstype: "erofs", readOnly: true }]);
  });

  test.each([
    [{ tmpfs: [{ target: "/" }] }, "over /"],
    [{ tmpfs: [{ target: "/a/../b" }] }, '".."'],
    [{ tmpfs: [{ target: "/a" }, { target: "//a/" }] }, "twice at /a"],
    [{ volumes: Array.from({ length: 4 }, (_, n) => ({ source: { volume: "v" }, target: `/v${n}` })) }, "3 slots"],
  ] as [CreateVmRequest, string][])("%j is refused", (request, why) => {
    expect(() => plan(request)).toThrow(why);
  });
});

test("all exposed TCP ports are published on free ones, unless they have one", () => {
  const config = { exposedPorts: ["80/tcp", "53/udp", "443", "x"] };
  expect(plan({ publishAll: true, ports: [{ hostPort: 8080, guestPort: 80 }] }, config).ports).toEqual([
    { hostPort: 8080, guestPort: 80 },
    { hostPort: 0, guestPort: 443 },
  ]);
  expect(plan({}, config).ports).toEqual([]);
});

test("a health check is the image's with what the request says about it", () => {
  const healthCheck = { test: ["CMD", "true"], retries: 2, intervalMs: 5 };
  expect(plan({}, { healthCheck }).health).toEqual(healthCheck);
  expect(plan({ health: { retries: 7 } }, { healthCheck }).health).toEqual({ ...healthCheck, retries: 7 });
  expect(plan({ health: { test: ["NONE"] } }, { healthCheck }).health).toBeUndefined();
  expect(plan({ health: { retries: 7 } }, {}).health).toBeUndefined();
});

test("a stop signal that is none is the image's fault", () => {
  expect(() => plan({}, { stopSignal: "SIGFLY" })).toThrow("SIGFLY");
});
