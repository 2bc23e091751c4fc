/** `ps`, `top`, `diff`, `port`, `template ls` as processes, over a daemon whose engine has what the test says. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Installation } from "../../tests/support/mayfly-process.ts";
import { sampleProcess, sampleTemplate, sampleVm } from "../../tests/support/samples.ts";
import { type ServedDaemon, servedDaemon } from "../../tests/support/served-daemon.ts";
import type { Template, Vm } from "../contract/api.ts";

let daemon: ServedDaemon;
const cli = new Installation(join(import.meta.dir, "main.ts"), "/nonexistent");
beforeAll(async () => {
  daemon = await servedDaemon();
});
afterAll(() => daemon[Symbol.asyncDispose]());
beforeEach(() => daemon.engine.vms.clear());

const mayfly = (...args: string[]) => cli.run(["-H", `unix://${daemon.socketPath}`, ...args]);
const out = async (...args: string[]) => {
  const { stdout, stderr, exitCode } = await mayfly(...args);
  return exitCode === 0 ? stdout : `${exitCode}: ${stdout}${stderr}`;
};
let made = 0;
const add = (given: Partial<Vm>): Vm => {
  made += 1;
  const id = `vm_${String(made).padStart(26, "a")}`;
  const vm = { ...sampleVm, id, name: `vm${made}`, createdAt: new Date(made * 1000).toISOString(), ...given };
  daemon.engine.vms.set(id, vm);
  return vm;
};
const minutesAgo = (minutes: number) => new Date(Date.now() - minutes * 60_000).toISOString();
const health = (status: "starting" | "healthy" | "unhealthy") => ({
  status,
  failingStreak: 0,
  lastExitCode: 0,
  lastOutput: "",
});

describe("ps", () => {
  test("has docker's columns, with health, restarts and ports", async () => {
    const ports = [8001, 8000, 9000].map((hostPort) => ({ hostIp: "127.0.0.1", hostPort, guestPort: hostPort - 7920 }));
    add({ name: "old", state: "exited", exitCode: 3, finishedAt: minutesAgo(2), ports });
    add({ name: "again", state: "restarting", exitCode: 5, restartCount: 2 });
    add({ name: "new", startedAt: minutesAgo(3), health: health("starting"), rootfs: "mine" });
    const image = "docker.io/library/debian:12";
    add({
      name: "web",
      startedAt: minutesAgo(3),
      health: health("healthy"),
      image,
      ports,
      command: ["sh", "-c", "a b"],
    });
    const lines = (await out("ps", "-a")).trimEnd().split("\n");
    const cells = lines.map((line) => line.split(/ {2,}/));
    expect(cells[0]).toEqual(["VM ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    const listed = "127.0.0.1:8000-8001->80-81/tcp, 127.0.0.1:9000->1080/tcp";
    expect(cells[1]?.slice(1)).toEqual([
      "debian:12",
      "sh -c 'a b'",
      expect.any(String),
      "Up 3 minutes (healthy)",
      listed,
      "web",
    ]);
    expect(cells[2]?.slice(1)).toEqual([
      "mine",
      "sleep 1",
      expect.any(String),
      "Up 3 minutes (health: starting)",
      "new",
    ]);
    expect(cells[3]?.slice(4)).toEqual(["Restarting (5)", "again"]);
    expect(cells[4]?.slice(4)).toEqual(["Exited (3) 2 minutes ago", "old"]);
    expect((await out("ps", "-q", "--names")).trim().split("\n")).toEqual(["web", "new", "again"]);
    expect((await out("ps", "-n", "1", "-q", "--no-trunc")).trim()).toMatch(/^vm_a+\d+$/);
    expect(JSON.parse(await out("ps", "--json"))).toMatchObject([
      { name: "web", health: { status: "healthy" } },
      {},
      {},
    ]);
  });

  test("filters by status, name, image, health, id and labels", async () => {
    const registry = "localhost:5000/team/app:1";
    const [a, b, c] = [
      add({
        name: "a-web",
        image: registry,
        imageId: "img_abc",
        health: health("unhealthy"),
        labels: { x: "1", y: "2" },
      }),
      add({ name: "b-web", state: "restarting", labels: { x: "1" } }),
      add({ name: "c", state: "exited", exitCode: 0, finishedAt: minutesAgo(1), image: "docker.io/library/app:2" }),
    ];
    const names = async (...filters: string[]) => {
      const all = filters.flatMap((filter) => ["--filter", filter]);
      return (await out("ps", "-q", "--names", ...all)).trim();
    };
    expect(await names("status=restarting")).toBe("b-web");
    expect(await names("state=exited", "status=running")).toBe("c\na-web");
    expect(await names("health=unhealthy")).toBe("a-web");
    expect(await names("health=none")).toBe("b-web");
    expect(await names("name=web")).toBe("b-web\na-web");
    expect(await names("label=x=1", "label=y")).toBe("a-web");
    expect(await names("ancestor=team/app", "status=running")).toBe("a-web");
    for (const image of [registry, "localhost:5000/team/app", "team/app:1", "img_abc", "abc"]) {
      expect(await names(`image=${image}`)).toBe("a-web");
    }
    expect(await names("image=app", "status=exited", "status=running")).toBe("c\na-web");
    expect(await names("image=ap")).toBe("");
    expect(await names(`id=${b.id}`)).toBe("b-web");
    for (const filter of ["state=up", "health=fine", "colour=red", "name"]) {
      expect(await names(filter)).toMatch(/^125: mayfly: --filter/);
    }
    expect([a, c].length).toBe(2);
  });
});

test("top shows processes, whatever their names", async () => {
  add({ name: "web" });
  daemon.engine.vmProcesses = [sampleProcess, { ...sampleProcess, pid: 9, command: ["a\nb\u001b[2J", "c"] }];
  const lines = (await out("top", "web", "-o", "pid,args")).split("\n");
  expect(lines).toEqual(["PID   COMMAND", "71    sleep 1", "9     a\\nb\\u001b[2J c", ""]);
  expect(await out("top", "web")).toMatch(/^UID +PID +PPID +C +STIME +TTY +TIME +CMD\nroot +71 +1 +2 /);
  expect(JSON.parse(await out("top", "web", "--json"))).toEqual(daemon.engine.vmProcesses);
  expect(await out("top", "web", "--forest")).toMatch(/^125: mayfly: top: .*\n *hint: use -ef, aux/);
  expect(await out("top")).toMatch(/^125: mayfly: top: VM is missing/);
});

test("diff shows changes, whatever their names", async () => {
  add({ name: "web" });
  daemon.engine.vmChanges = [
    { kind: "changed", path: "/etc" },
    { kind: "added", path: "/etc/a\nD /b" },
    { kind: "deleted", path: "/gone" },
  ];
  expect(await out("diff", "web")).toBe("C /etc\nA /etc/a\\nD /b\nD /gone\n");
  expect(JSON.parse(await out("diff", "web", "--json"))).toEqual(daemon.engine.vmChanges);
});

test("port shows where ports lead, and ends with 1 if nowhere", async () => {
  add({ name: "none" });
  const ports = [
    { hostIp: "0.0.0.0", hostPort: 8080, guestPort: 80 },
    { hostIp: "::", hostPort: 8080, guestPort: 80 },
    { hostIp: "127.0.0.1", hostPort: 5000, guestPort: 5432 },
  ];
  add({ name: "web", ports });
  expect(await out("port", "web")).toBe("80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n5432/tcp -> 127.0.0.1:5000\n");
  expect(await out("port", "web", "5432/tcp")).toBe("127.0.0.1:5000\n");
  expect(JSON.parse(await out("port", "web", "80", "--json"))).toEqual(ports.slice(0, 2));
  expect(await out("port", "web", "81")).toBe("1: VM web does not publish port 81/tcp\n");
  expect(await out("port", "none")).toBe("1: VM none publishes no ports\n");
  expect(await out("port", "web", "80/udp")).toMatch(/^125: mayfly: port: "80\/udp" is no TCP port/);
});

test("attach leaves a process alone when signals are not passed on", async () => {
  add({ name: "web" });
  let started = Promise.withResolvers<void>();
  daemon.engine.script = () => started.resolve();
  const attached = cli.spawn(["-H", `unix://${daemon.socketPath}`, "attach", "--no-stdin", "--sig-proxy=false", "web"]);
  await started.promise;
  attached.kill("SIGINT");
  expect(await attached.exited).toBe(130);
  expect(daemon.engine.processes.at(-1)?.signals).toEqual([]);
  started = Promise.withResolvers();
  const proxied = cli.spawn(["-H", `unix://${daemon.socketPath}`, "attach", "--no-stdin", "web"]);
  daemon.engine.script = (process) => {
    process.signal = (signal) => process.exit(128 + signal, signal);
    started.resolve();
  };
  await started.promise;
  proxied.kill("SIGTERM");
  expect(await proxied.exited).toBe(143);
  expect(await out("attach", "--sig-proxy=maybe", "web")).toMatch(/^125: .*not true or false/);
});

test("template ls shows names and images as people know them, and ids of what has no name", async () => {
  const { listTemplates } = daemon.engine;
  const application = { image: "docker.io/library/shop:1" } as NonNullable<Template["application"]>;
  const id = "tpl_bbbbbbbbbbbbbbbbbbbbbbbbbb" as const;
  const templates = [
    { ...sampleTemplate, name: null },
    { ...sampleTemplate, id, name: "shop", application },
  ];
  daemon.engine.listTemplates = () => templates;
  const [_, size, shop] = (await out("template", "ls")).split("\n");
  expect(size).toMatch(/^a{16} +- +- +128MiB/);
  expect(shop).toMatch(/^b{16} +shop +shop:1 +128MiB/);
  expect(await out("template", "ls", "-q")).toBe(`${"a".repeat(16)}\n${"b".repeat(16)}\n`);
  expect(await out("template", "ls", "-q", "--names")).toBe(`${"a".repeat(16)}\nshop\n`);
  daemon.engine.listTemplates = listTemplates;
});
