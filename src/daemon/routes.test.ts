import { expect, test } from "bun:test";
import { connect } from "node:net";
import type { z } from "zod";
import { sampleImage, sampleTemplate } from "../../tests/support/samples.ts";
import { servedDaemon } from "../../tests/support/served-daemon.ts";
import { ExecResult, Operation, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { routes } from "./routes/table.ts";

/** A call of each route, in an order in which each succeeds; `{vm}` and `{op}` are filled in. */
const CALLS: readonly { route: string; path?: string; json?: unknown; body?: string; expect?: number }[] = [
  { route: "GET /healthz" },
  { route: "GET /v1/version" },
  { route: "GET /v1/system/info" },
  { route: "GET /v1/system/df" },
  { route: "POST /v1/system/prune" },
  { route: "GET /metrics" },
  { route: "GET /v1/openapi.json" },
  { route: "POST /v1/vms", json: { command: ["sleep", "1"], name: "one", env: { A: "b" }, memoryBytes: 1 << 27 } },
  { route: "GET /v1/vms" },
  { route: "GET /v1/vms/{id}", path: "/v1/vms/one" },
  { route: "POST /v1/vms/{id}/kill", path: "/v1/vms/one/kill" },
  { route: "POST /v1/vms/{id}/exec", path: "/v1/vms/one/exec", json: { command: ["echo", "x"] } },
  { route: "GET /v1/vms/{id}/logs", path: "/v1/vms/one/logs" },
  { route: "GET /v1/vms/{id}/console", path: "/v1/vms/one/console" },
  { route: "GET /v1/vms/{id}/stats", path: "/v1/vms/one/stats" },
  { route: "POST /v1/vms/{id}/refresh", path: "/v1/vms/one/refresh" },
  { route: "GET /v1/vms/{id}/processes", path: "/v1/vms/one/processes" },
  { route: "GET /v1/vms/{id}/changes", path: "/v1/vms/one/changes" },
  { route: "PUT /v1/vms/{id}/files", path: "/v1/vms/one/files?path=/a/b&mode=0600&parents", body: "bytes" },
  { route: "GET /v1/vms/{id}/files", path: "/v1/vms/one/files?path=/a/b" },
  { route: "GET /v1/vms/{id}/files/stat", path: "/v1/vms/one/files/stat?path=/a/b" },
  { route: "GET /v1/vms/{id}/files/list", path: "/v1/vms/one/files/list?path=/a" },
  { route: "POST /v1/vms/{id}/files/mkdir", path: "/v1/vms/one/files/mkdir?path=/c" },
  { route: "DELETE /v1/vms/{id}/files", path: "/v1/vms/one/files?path=/c&recursive=true" },
  { route: "POST /v1/vms/{id}/checkpoint", path: "/v1/vms/one/checkpoint", json: { name: "first" } },
  { route: "POST /v1/vms/{id}/fork", path: "/v1/vms/one/fork", json: { count: 2, namePrefix: "child" } },
  { route: "POST /v1/vms/{id}/resume", path: "/v1/vms/one/resume" },
  { route: "GET /v1/snapshots" },
  { route: "GET /v1/snapshots/{id}", path: "/v1/snapshots/first" },
  { route: "POST /v1/snapshots/{id}/verify", path: "/v1/snapshots/first/verify" },
  { route: "GET /v1/snapshots/{id}/diff", path: "/v1/snapshots/first/diff?from=first" },
  { route: "POST /v1/snapshots/{id}/export", path: "/v1/snapshots/first/export", json: { path: "/tmp/first" } },
  { route: "POST /v1/snapshots/{id}/promote", path: "/v1/snapshots/first/promote" },
  { route: "POST /v1/snapshots/import", json: { path: "/tmp/first", name: "second" } },
  { route: "GET /v1/tree" },
  { route: "POST /v1/vms/{id}/stop", path: "/v1/vms/one/stop", json: { graceMs: 5 } },
  { route: "POST /v1/vms/{id}/wait", path: "/v1/vms/one/wait" },
  { route: "POST /v1/snapshots/{id}/restore", path: "/v1/snapshots/first/restore" },
  { route: "DELETE /v1/vms/{id}", path: "/v1/vms/one?force" },
  { route: "DELETE /v1/snapshots/{id}", path: "/v1/snapshots/first" },
  { route: "POST /v1/snapshots/prune" },
  { route: "POST /v1/templates", json: { cpus: 2 } },
  { route: "GET /v1/templates" },
  { route: "GET /v1/templates/{id}", path: `/v1/templates/${sampleTemplate.id}` },
  {
    route: "PUT /v1/templates/{id}/pool",
    path: `/v1/templates/${sampleTemplate.id}/pool`,
    json: { warm: 2, blocked: 1 },
  },
  { route: "POST /v1/templates/{id}/verify", path: `/v1/templates/${sampleTemplate.id}/verify` },
  { route: "DELETE /v1/templates/{id}", path: `/v1/templates/${sampleTemplate.id}?force` },
  { route: "POST /v1/images", json: { name: "alpha", path: "/tmp/alpha.tar" } },
  { route: "GET /v1/images" },
  { route: "GET /v1/images/{id}", path: `/v1/images/${sampleImage.name}` },
  { route: "POST /v1/images/pull", json: { reference: "debian:12" } },
  { route: "POST /v1/images/load", json: { path: "/tmp/images.tar" } },
  { route: "POST /v1/images/archive", body: "an archive" },
  { route: "POST /v1/images/build", json: { context: "/tmp", tags: ["app:1"], buildArgs: { A: "b" } } },
  { route: "POST /v1/images/{id}/tag", path: `/v1/images/${sampleImage.name}/tag`, json: { name: "b:2" } },
  { route: "POST /v1/images/prune", json: { all: true } },
  { route: "DELETE /v1/images/{id}", path: `/v1/images/${sampleImage.name}` },
  { route: "POST /v1/volumes", json: { name: "data", sizeBytes: 1 << 28, labels: { a: "b" } } },
  { route: "GET /v1/volumes" },
  { route: "GET /v1/volumes/{name}", path: "/v1/volumes/data" },
  { route: "POST /v1/volumes/{name}/resize", path: "/v1/volumes/data/resize", json: { sizeBytes: 1 << 29 } },
  { route: "DELETE /v1/volumes/{name}", path: "/v1/volumes/data" },
  { route: "POST /v1/volumes/prune", path: "/v1/volumes/prune?all" },
  { route: "GET /v1/operations" },
  { route: "GET /v1/operations/{id}", path: "/v1/operations/{op}" },
  { route: "GET /v1/operations/{id}/events", path: "/v1/operations/{op}/events" },
  { route: "DELETE /v1/operations/{id}", path: "/v1/operations/{op}" },
];

/** Routes with a test of their own: streams, and events that do not end. */
const ELSEWHERE = ["GET /v1/events", "GET /v1/vms/run", "GET /v1/vms/{id}/exec", "GET /v1/vms/{id}/attach"];

test("every route answers as its entry says", async () => {
  await using daemon = await servedDaemon();
  let operation = "";
  for (const call of CALLS) {
    const [method = "", pattern = ""] = call.route.split(" ");
    const route = routes.find((candidate) => candidate.method === method && candidate.path === pattern);
    if (route === undefined) throw new Error(`${call.route} is not in the table`);
    const path = (call.path ?? pattern).replace("{op}", operation);
    const init = call.body === undefined ? {} : { body: call.body };
    const response = await daemon.call(method, path, call.json, init);
    expect([call.route, response.status]).toEqual([call.route, route.answer.status]);
    if (route.answer.status === 204) {
      expect(await response.text()).toBe("");
    } else if (route.answer.schema !== undefined && route.answer.content === undefined) {
      const document = await response.json();
      expect([call.route, problemsOf(route.answer.schema, document)]).toEqual([call.route, []]);
      if (pattern === "/v1/templates" && method === "POST") operation = (document as { id: string }).id;
    } else {
      expect(response.headers.get("content-type")).toStartWith(route.answer.content ?? "?");
      expect((await response.bytes()).length + 1).toBeGreaterThan(0);
    }
  }
});

test("the calls of this test and those elsewhere are the whole table", () => {
  const called = [...CALLS.map(({ route }) => route), ...ELSEWHERE].sort();
  expect(called).toEqual(routes.map(({ method, path }) => `${method} ${path}`).sort());
});

function problemsOf(schema: z.ZodType, document: unknown): string[] {
  const result = schema.safeParse(document);
  return result.success ? [] : result.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
}

test("what is made says where it is", async () => {
  await using daemon = await servedDaemon();
  const vm = await daemon.call("POST", "/v1/vms", { name: "one" });
  expect(vm.headers.get("location")).toBe(`/v1/vms/${Vm.parse(await vm.json()).id}`);
  const operation = await daemon.call("POST", "/v1/templates");
  expect(operation.headers.get("location")).toBe(`/v1/operations/${Operation.parse(await operation.json()).id}`);
});

test("defaults: kill sends SIGKILL, stop leaves 10 s", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  expect((await daemon.ask(Vm, "POST", "/v1/vms/one/kill")).exitSignal).toBe(9);
  expect((await daemon.ask(Vm, "POST", "/v1/vms/one/kill", { signal: 2 })).exitSignal).toBe(2);
  expect((await daemon.ask(Vm, "POST", "/v1/vms/one/stop")).labels).toEqual({ graceMs: "undefined" });
});

test("exec: output of both streams in base64, cut at 1 MiB", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  daemon.engine.script = async (process) => {
    for (let part = 0; part < 17; part += 1) await process.print(new Uint8Array(65_536).fill(97));
    await process.print("oops", 2);
    process.exit(143, 15);
  };
  const result = await daemon.ask(ExecResult, "POST", "/v1/vms/one/exec", { command: ["x"] });
  expect(Buffer.from(result.stdout, "base64")).toEqual(Buffer.alloc(1 << 20, 97));
  expect(Buffer.from(result.stderr, "base64").toString()).toBe("oops");
  expect(result).toMatchObject({ exitCode: 143, signal: 15, truncated: true });
});

test("exec in one request: the process is killed when its client goes away", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  const killed = Promise.withResolvers<number>();
  daemon.engine.script = (process) => {
    process.signal = (signal) => {
      killed.resolve(signal);
      process.exit(137, 9);
    };
    client.abort();
  };
  const client = new AbortController();
  const asked = daemon.call("POST", "/v1/vms/one/exec", { command: ["sleep", "9"] }, { signal: client.signal });
  expect(asked).rejects.toThrow();
  expect(await killed.promise).toBe(9);
});

test("a file goes in and out unchanged, with its stat in a header", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  const bytes = crypto.getRandomValues(new Uint8Array(60_000));
  const content = Buffer.concat(Array.from({ length: 40 }, () => bytes));
  const put = await daemon.call("PUT", "/v1/vms/one/files?path=/big", undefined, { body: content });
  expect(put.status).toBe(204);
  const got = await daemon.call("GET", "/v1/vms/one/files?path=/big");
  expect(Buffer.compare(Buffer.from(await got.bytes()), content)).toBe(0);
  const stat = JSON.parse(Buffer.from(got.headers.get("mayfly-file-stat") ?? "", "base64").toString());
  expect(stat).toMatchObject({ name: "big", size: content.length });
});

test("a file that breaks off while it is read is not taken for a whole one", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  const stat = await daemon.call("PUT", "/v1/vms/one/files?path=/f", undefined, { body: "x" });
  expect(stat.status).toBe(204);
  daemon.engine.readFile = async (_ref, path) => ({
    stat: await daemon.engine.statFile("one", path),
    content: (async function* () {
      yield new Uint8Array(10);
      await Bun.sleep(1);
      throw new MayflyError("agent_disconnected", "the guest has gone");
    })(),
  });
  const whole = daemon.call("GET", "/v1/vms/one/files?path=/f").then((response) => response.bytes());
  expect(whole).rejects.toThrow();
  await whole.catch(() => undefined);
});

test("a file whose client goes away before its end is not written", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  const outcome = Promise.withResolvers<unknown>();
  const writeFile = daemon.engine.writeFile.bind(daemon.engine);
  daemon.engine.writeFile = (ref, path, content) => {
    const written = writeFile(ref, path, content);
    written.then(outcome.resolve, outcome.resolve);
    return written;
  };
  const socket = connect(daemon.socketPath);
  socket.write("PUT /v1/vms/one/files?path=/f HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome");
  await new Promise((resolve) => socket.once("connect", resolve));
  await daemon.call("GET", "/healthz");
  socket.destroy();
  expect(await outcome.promise).toMatchObject({ code: "cancelled" });
  expect(daemon.engine.files.size).toBe(0);
});

test("stopping goes on when the client goes away", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  const client = new AbortController();
  const asked = Promise.withResolvers<AbortSignal | undefined>();
  daemon.engine.stopVm = async (ref, _graceMs, deadline) => {
    asked.resolve(deadline.signal);
    client.abort();
    return daemon.engine.getVm(ref);
  };
  await daemon.call("POST", "/v1/vms/one/stop", undefined, { signal: client.signal }).catch(() => undefined);
  expect(await asked.promise).toBeUndefined();
});

test("logs: both streams apart in frames, and follow ends with the client", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  daemon.engine.logChunks = [
    { channel: 1, chunk: new TextEncoder().encode("out\n") },
    { channel: 2, chunk: new TextEncoder().encode("error\n") },
  ];
  const all = await daemon.call("GET", "/v1/vms/one/logs");
  expect(Buffer.from(await all.bytes()).toString("latin1")).toBe(
    "\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x06error\n",
  );
  const tail = await daemon.call("GET", "/v1/vms/one/logs?tail=1");
  expect((await tail.bytes()).length).toBe(14);

  const ended = Promise.withResolvers<void>();
  const logs = daemon.engine.logs.bind(daemon.engine);
  daemon.engine.logs = async function* (ref, options) {
    yield* logs(ref, options);
    ended.resolve();
  };
  const client = new AbortController();
  const following = await daemon.call("GET", "/v1/vms/one/logs?follow", undefined, { signal: client.signal });
  const reader = following.body?.getReader();
  expect((await reader?.read())?.value?.length).toBeGreaterThan(0);
  client.abort();
  await ended.promise;
});

test("waiting ends with the client", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  const ended = Promise.withResolvers<void>();
  const waitVm = daemon.engine.waitVm.bind(daemon.engine);
  const client = new AbortController();
  daemon.engine.waitVm = async (ref, signal) => {
    client.abort();
    const vm = await waitVm(ref, signal);
    ended.resolve();
    return vm;
  };
  expect(daemon.call("POST", "/v1/vms/one/wait", undefined, { signal: client.signal })).rejects.toThrow();
  await ended.promise;
});
