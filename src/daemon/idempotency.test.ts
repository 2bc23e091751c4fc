import { expect, test } from "bun:test";
import { servedDaemon } from "../../tests/support/served-daemon.ts";
import { Problem, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";

const key = (value: string) => ({ headers: { "idempotency-key": value } });

test("the same key and body give the same VM, also while it is being made; key order does not matter", async () => {
  await using daemon = await servedDaemon();
  const gate = Promise.withResolvers<void>();
  daemon.engine.work = () => gate.promise;
  const first = daemon.ask(Vm, "POST", "/v1/vms", { name: "one", cpus: 1 }, key("k"));
  const second = daemon.ask(Vm, "POST", "/v1/vms", { cpus: 1, name: "one" }, key("k"));
  gate.resolve();
  const { id } = await first;
  expect((await second).id).toBe(id);
  const third = await daemon.call("POST", "/v1/vms", { name: "one", cpus: 1 }, key("k"));
  expect([third.status, Vm.parse(await third.json()).id]).toEqual([201, id]);
  expect(daemon.engine.created).toBe(1);
});

test("another body with the key is refused; without a key nothing is remembered", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" }, key("k"));
  const other = await daemon.call("POST", "/v1/vms", { name: "two" }, key("k"));
  expect([other.status, Problem.parse(await other.json()).code]).toEqual([409, "idempotency_conflict"]);
  await daemon.call("POST", "/v1/vms", { name: "one" });
  expect(daemon.engine.created).toBe(2);
  const long = await daemon.call("POST", "/v1/vms", { name: "two" }, key("k".repeat(256)));
  expect([long.status, Problem.parse(await long.json()).code]).toEqual([400, "invalid_argument"]);
});

test("a failure is not remembered", async () => {
  await using daemon = await servedDaemon();
  daemon.engine.work = () => Promise.reject(new MayflyError("disk_full", "the disk is full"));
  expect((await daemon.call("POST", "/v1/vms", {}, key("k"))).status).toBe(507);
  daemon.engine.work = () => Promise.resolve();
  expect((await daemon.call("POST", "/v1/vms", {}, key("k"))).status).toBe(201);
});

test("with a key the creation goes on when the client goes away; without one it is cancelled", async () => {
  await using daemon = await servedDaemon();
  for (const [init, goesOn] of [
    [key("k"), true],
    [{}, false],
  ] as const) {
    const gate = Promise.withResolvers<void>();
    const signals: (AbortSignal | undefined)[] = [];
    const client = new AbortController();
    daemon.engine.work = ({ deadline }) => {
      signals.push(deadline.signal);
      client.abort();
      deadline.signal?.addEventListener("abort", () => gate.resolve());
      return gate.promise;
    };
    await daemon.call("POST", "/v1/vms", {}, { ...init, signal: client.signal }).catch(() => undefined);
    if (goesOn) gate.resolve();
    await gate.promise;
    expect(signals).toHaveLength(1);
    expect(signals[0] === undefined).toBe(goesOn);
  }
  const again = await daemon.call("POST", "/v1/vms", {}, key("k"));
  expect(again.status).toBe(201);
  expect(daemon.engine.created).toBe(2);
});
