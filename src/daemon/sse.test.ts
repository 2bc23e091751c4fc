import { expect, test } from "bun:test";
import { servedDaemon } from "../../tests/support/served-daemon.ts";
import { Operation } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { eventStream } from "./sse.ts";

/** Reads a stream of events until `enough` says so or it ends. */
async function readEvents(response: Response, enough: (text: string) => boolean): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const part of response.body ?? []) {
    text += decoder.decode(part, { stream: true });
    if (enough(text)) break;
  }
  return text;
}

const event = (type: string, id = "vm_a") => ({
  type,
  time: "2026-01-02T03:04:05.000Z",
  id,
  attributes: { text: "a\nb" },
});

test("events come as they happen, framed, filtered, and the source is left at the end", async () => {
  await using daemon = await servedDaemon();
  const client = new AbortController();
  const response = await daemon.call("GET", "/v1/events?type=vm.&id=vm_a", undefined, { signal: client.signal });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  daemon.engine.emit(event("vm.running"));
  daemon.engine.emit(event("template.built"));
  daemon.engine.emit(event("vm.running", "vm_b"));
  daemon.engine.emit(event("vm.exited"));
  const text = await readEvents(response, (so) => so.includes("vm.exited"));
  const data = (type: string) => JSON.stringify(event(type));
  expect(text).toBe(
    `: connected\n\nid: 1\nevent: vm.running\ndata: ${data("vm.running")}\n\nid: 2\nevent: vm.exited\ndata: ${data("vm.exited")}\n\n`,
  );
  const left = Promise.withResolvers<void>();
  const { listeners } = daemon.engine;
  const remove = listeners.delete.bind(listeners);
  listeners.delete = (listener) => {
    left.resolve();
    return remove(listener);
  };
  client.abort();
  if (listeners.size > 0) await left.promise;
  expect(listeners.size).toBe(0);
});

test("a reader that does not keep up is told and left, and no more than the limit is kept", async () => {
  let send: (() => void) | undefined;
  let stopped = 0;
  const response = eventStream((sink) => {
    send = () => sink.send("tick", {});
    return () => {
      stopped += 1;
    };
  }, new AbortController().signal);
  for (let count = 0; count < 5000; count += 1) send?.();
  const text = await response.text();
  expect(text.match(/event: tick/g)?.length).toBe(1023);
  expect(text).toEndWith('event: overflow\ndata: {"kept":1024}\n\n');
  expect(stopped).toBe(1);
});

test("progress of an operation ends with it", async () => {
  await using daemon = await servedDaemon();
  const gate = Promise.withResolvers<void>();
  daemon.engine.work = async ({ onProgress }) => {
    await gate.promise;
    onProgress?.("trim");
  };
  const { id, state } = await daemon.ask(Operation, "POST", "/v1/templates");
  expect(state).toBe("running");
  const response = await daemon.call("GET", `/v1/operations/${id}/events`);
  gate.resolve();
  const operations = [...(await response.text()).matchAll(/event: operation\ndata: (.*)\n\n/g)].map(([, data]) =>
    Operation.parse(JSON.parse(data ?? "")),
  );
  expect(operations.map((operation) => [operation.state, operation.step])).toEqual([
    ["running", "boot"],
    ["running", "trim"],
    ["done", "trim"],
  ]);
  expect(operations.at(-1)?.result).toStartWith("tpl_");
  const after = await (await daemon.call("GET", `/v1/operations/${id}/events`)).text();
  expect(after.match(/event: operation/g)).toHaveLength(1);
});

test("operations fail with their problem and are cancelled on demand", async () => {
  await using daemon = await servedDaemon();
  const failed = await daemon.ask(Operation, "POST", "/v1/images", { name: "bad", path: "/bad" });
  await (await daemon.call("GET", `/v1/operations/${failed.id}/events`)).text();
  const after = await daemon.ask(Operation, "GET", `/v1/operations/${failed.id}`);
  expect([after.state, after.error?.code, after.result]).toEqual(["failed", "image_invalid", null]);

  daemon.engine.work = () => new Promise(() => undefined);
  const endless = await daemon.ask(Operation, "POST", "/v1/templates");
  const events = await daemon.call("GET", `/v1/operations/${endless.id}/events`);
  expect((await daemon.call("DELETE", `/v1/operations/${endless.id}`)).status).toBe(204);
  await events.text();
  const cancelled = await daemon.ask(Operation, "GET", `/v1/operations/${endless.id}`);
  expect([cancelled.state, cancelled.error?.code]).toEqual(["cancelled", "cancelled"]);

  const unknown = await daemon.call("DELETE", "/v1/operations/op_none");
  expect(unknown.status).toBe(404);
});

test("the daemon remembers the last 200 ended operations", async () => {
  await using daemon = await servedDaemon();
  daemon.engine.importImage = () => Promise.reject(new MayflyError("image_invalid", "no image"));
  for (let count = 0; count < 205; count += 1) {
    await daemon.call("POST", "/v1/images", { name: "a", path: "/a" });
  }
  expect(await daemon.ask(Operation.array(), "GET", "/v1/operations")).toHaveLength(200);
});
