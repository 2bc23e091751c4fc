import { expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import type { FakeProcess } from "../../tests/support/fake-engine.ts";
import { type ServedDaemon, servedDaemon } from "../../tests/support/served-daemon.ts";
import { STDIN_WINDOW_BYTES, type StreamRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";

/** Resolves with the next process that the fake makes, which then does nothing by itself. */
function nextProcess(daemon: ServedDaemon): Promise<FakeProcess> {
  return new Promise((resolve) => {
    daemon.engine.script = resolve;
  });
}

test("run: started, output and exit come, in this order at the end", async () => {
  await using daemon = await servedDaemon();
  const stream = await daemon.connect("/v1/vms/run");
  stream.send({ type: "create", request: { command: ["echo", "hello"] } });
  expect(await stream.reply("exit")).toEqual({ type: "exit", exitCode: 0, signal: 0 });
  expect(stream.text(1)).toBe("hello\n");
  expect((await stream.reply("started")).vm.command).toEqual(["echo", "hello"]);
  expect(stream.replies.at(-1)?.type).toBe("exit");
  expect(await stream.closed).toBe(1000);
});

test("run: progress of a template that is built first", async () => {
  await using daemon = await servedDaemon();
  daemon.engine.work = async ({ onProgress }) => onProgress?.("boot");
  const stream = await daemon.connect("/v1/vms/run");
  stream.send({ type: "create", request: { command: ["true"] } });
  await stream.reply("exit");
  expect(stream.replies.map(({ type }) => type)).toEqual(["progress", "started", "exit"]);
});

test("exec and attach: both outputs apart, exit code and signal passed on", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "one" });
  const openings: Record<string, StreamRequest> = {
    "/v1/vms/one/exec": { type: "exec", request: { command: ["x"] } },
    "/v1/vms/one/attach": { type: "attach", stdin: false, logs: true },
  };
  for (const [path, opening] of Object.entries(openings)) {
    const made = nextProcess(daemon);
    const stream = await daemon.connect(path);
    stream.send(opening);
    const process = await made;
    await process.print("out");
    await process.print("error", 2);
    process.exit(143, 15);
    expect(await stream.reply("exit")).toEqual({ type: "exit", exitCode: 143, signal: 15 });
    expect([stream.text(1), stream.text(2)]).toEqual(["out", "error"]);
  }
});

test("standard input goes in in order, is acknowledged when taken, and ends with eof", async () => {
  await using daemon = await servedDaemon();
  const made = nextProcess(daemon);
  const stream = await daemon.connect("/v1/vms/run");
  stream.send({ type: "create", request: { command: ["cat"], stdin: true } });
  for (let part = 0; part < 10; part += 1) stream.input(Buffer.alloc(1000, part));
  stream.send({ type: "eof" });
  const process = await made;
  const gate = Promise.withResolvers<void>();
  process.gate = gate.promise;
  await stream.reply("started");
  expect(process.inputClosed).toBe(false);
  gate.resolve();
  while (stream.replies.filter(({ type }) => type === "ack").length < 10) await stream.change();
  expect(process.inputClosed).toBe(true);
  expect(Buffer.concat(process.input)).toEqual(
    Buffer.concat(Array.from({ length: 10 }, (_, n) => Buffer.alloc(1000, n))),
  );
  const acknowledged = stream.replies.reduce((sum, reply) => sum + (reply.type === "ack" ? reply.bytes : 0), 0);
  expect(acknowledged).toBe(10_000);
});

test("signals and resizes do not wait behind standard input, nor for the start", async () => {
  await using daemon = await servedDaemon();
  const creation = Promise.withResolvers<void>();
  daemon.engine.work = () => creation.promise;
  const made = nextProcess(daemon);
  const stream = await daemon.connect("/v1/vms/run");
  stream.send({ type: "create", request: { command: ["cat"], stdin: true, terminal: { rows: 1, columns: 1 } } });
  stream.send({ type: "resize", rows: 24, columns: 80 });
  stream.send({ type: "signal", signal: 28 });
  creation.resolve();
  const process = await made;
  process.gate = new Promise(() => undefined);
  await stream.reply("started");
  expect([process.sizes, process.signals]).toEqual([[[24, 80]], [28]]);
  const signalled = Promise.withResolvers<number>();
  process.signal = signalled.resolve;
  stream.input(Buffer.alloc(1000));
  stream.send({ type: "signal", signal: 2 });
  expect(await signalled.promise).toBe(2);
});

test("input that the process takes no more is dropped, not an error", async () => {
  await using daemon = await servedDaemon();
  const made = nextProcess(daemon);
  const stream = await daemon.connect("/v1/vms/run");
  stream.send({ type: "create", request: { command: ["head"], stdin: true } });
  const process = await made;
  process.gate = Promise.reject(new MayflyError("agent_request_failed", "EPIPE"));
  process.gate.catch(() => undefined);
  stream.input(Buffer.alloc(10));
  expect((await stream.reply("ack")).bytes).toBe(10);
  process.exit(0);
  expect((await stream.reply("exit")).exitCode).toBe(0);
});

test("more input than the window is refused, and bounded", async () => {
  await using daemon = await servedDaemon();
  const made = nextProcess(daemon);
  const stream = await daemon.connect("/v1/vms/run");
  stream.send({ type: "create", request: { command: ["cat"], stdin: true } });
  const process = await made;
  process.gate = new Promise(() => undefined);
  for (let sent = 0; sent <= STDIN_WINDOW_BYTES; sent += 65_536) stream.input(Buffer.alloc(65_536));
  const { problem } = await stream.reply("error");
  expect(problem.code).toBe("invalid_argument");
  expect(problem.detail).toContain(String(STDIN_WINDOW_BYTES));
  expect(await stream.closed).toBe(1008);
  expect(process.detached).toBe(true);
});

test("messages that make no sense are refused with a problem", async () => {
  await using daemon = await servedDaemon();
  daemon.engine.script = () => undefined;
  const create = JSON.stringify({ type: "create", request: { command: ["x"] } });
  const cases: [string | Uint8Array<ArrayBuffer>, string][] = [
    ["{", "it is no JSON"],
    ['{"type":"dance"}', "type"],
    ['{"type":"create","request":{"command":[]}}', "Cannot take the request: command: "],
    ['{"type":"exec","request":{"command":["x"]}}', "begins with create, not with exec"],
    ['{"type":"resize","rows":-1,"columns":2}', "rows"],
    ['{"type":"create","request":{}}', "needs a command"],
    [Uint8Array.of(3, 1, 2), "channel 3"],
  ];
  for (const [message, expected] of cases) {
    const stream = await daemon.connect("/v1/vms/run");
    stream.sendRaw(message);
    expect((await stream.reply("error")).problem.detail).toContain(expected);
    expect([1008, 1011]).toContain(await stream.closed);
  }
  for (const second of [create, Uint8Array.of(0, 1)]) {
    const stream = await daemon.connect("/v1/vms/run");
    stream.sendRaw(create);
    await stream.reply("started");
    stream.sendRaw(second);
    const { detail } = (await stream.reply("error")).problem;
    expect(detail).toContain(typeof second === "string" ? "had begun" : "was not asked for");
  }
});

test("errors of the engine come as a problem: before the start, and while the process runs", async () => {
  await using daemon = await servedDaemon();
  const unknown = await daemon.connect("/v1/vms/none/exec");
  unknown.send({ type: "exec", request: { command: ["x"] } });
  expect((await unknown.reply("error")).problem).toMatchObject({ code: "vm_not_found", status: 404 });
  expect(await unknown.closed).toBe(1011);

  const made = nextProcess(daemon);
  const stream = await daemon.connect("/v1/vms/run");
  stream.send({ type: "create", request: { command: ["x"] } });
  const process = await made;
  await process.print("before");
  process.fail(new MayflyError("qemu_exited", "QEMU ended"));
  expect((await stream.reply("error")).problem.code).toBe("qemu_exited");
  expect(stream.text(1)).toBe("before");
});

test("a client that goes away detaches; with autoRemove the process gets SIGHUP and the VM is removed", async () => {
  await using daemon = await servedDaemon();
  for (const autoRemove of [false, true]) {
    const made = nextProcess(daemon);
    const stream = await daemon.connect("/v1/vms/run");
    stream.send({ type: "create", request: { command: ["x"], autoRemove } });
    const process = await made;
    const { vm } = await stream.reply("started");
    const gone = Promise.withResolvers<void>();
    const detach = process.detach.bind(process);
    process.detach = () => {
      detach();
      gone.resolve();
    };
    stream.close();
    await gone.promise;
    expect(process.signals).toEqual(autoRemove ? [1] : []);
    expect(process.sink?.output(1, Buffer.from("late"))).toBeUndefined();
    if (!autoRemove) continue;
    const removed = Promise.withResolvers<void>();
    const remove = daemon.engine.removeVm.bind(daemon.engine);
    daemon.engine.removeVm = (...request) => remove(...request).finally(removed.resolve);
    process.exit(129, 1);
    await removed.promise;
    expect(daemon.engine.removed).toEqual([vm.id]);
  }
});

test("a client that goes away while its VM is made cancels only what would be removed anyway", async () => {
  await using daemon = await servedDaemon();
  for (const autoRemove of [false, true]) {
    const asked = Promise.withResolvers<AbortSignal | undefined>();
    const gate = Promise.withResolvers<void>();
    daemon.engine.work = ({ deadline }) => {
      asked.resolve(deadline.signal);
      return gate.promise;
    };
    const stream = await daemon.connect("/v1/vms/run");
    stream.send({ type: "create", request: { command: ["x"], autoRemove } });
    const signal = await asked.promise;
    const made = nextProcess(daemon);
    stream.close();
    if (signal !== undefined) {
      expect(autoRemove).toBe(true);
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      continue;
    }
    await stream.closed;
    gate.resolve();
    const process = await made;
    const gone = Promise.withResolvers<void>();
    process.detach = gone.resolve;
    await gone.promise;
  }
});

/** A WebSocket client that does not read: the raw connection after its upgrade, paused. */
async function deafClient(daemon: ServedDaemon, request: object): Promise<Socket> {
  const socket = connect(daemon.socketPath);
  const key = "dGhlIHNhbXBsZSBub25jZQ==";
  const upgrade = `Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}`;
  socket.write(`GET /v1/vms/run HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n\r\n`);
  await new Promise((resolve) => socket.once("data", resolve));
  socket.pause();
  const text = Buffer.from(JSON.stringify({ type: "create", request }));
  // A masked text frame with a mask of zeroes (RFC 6455, 5.2); the text is shorter than 126 bytes.
  socket.write(Buffer.concat([Buffer.of(0x81, 0x80 | text.length, 0, 0, 0, 0), text]));
  return socket;
}

test("a client that does not read holds the process back, in bounded memory, and loses nothing", async () => {
  await using daemon = await servedDaemon();
  const made = nextProcess(daemon);
  const socket = await deafClient(daemon, { command: ["yes"] });
  const process = await made;
  const chunk = new Uint8Array(65_536).fill(121);
  const total = 64 << 20;
  let printed = 0;
  const printing = (async () => {
    for (; printed < total; printed += chunk.length) await process.print(chunk);
    process.exit(0);
  })();
  await Bun.sleep(200);
  // What fits into the kernel's buffers, the low-water mark and one chunk.
  const held = printed;
  expect(held).toBeLessThan(2 << 20);
  await Bun.sleep(100);
  expect(printed).toBe(held);
  let received = 0;
  socket.on("data", (data: Buffer) => {
    received += data.length;
  });
  socket.resume();
  const closed = new Promise((resolve) => socket.once("close", resolve));
  await printing;
  await closed;
  const frameHeaders = (total / chunk.length) * (10 + 1);
  expect(received - frameHeaders).toBeGreaterThanOrEqual(total);
  expect(received - frameHeaders).toBeLessThan(total + 4096);
});

test("a process is not held back by a client that has gone", async () => {
  await using daemon = await servedDaemon();
  const made = nextProcess(daemon);
  const socket = await deafClient(daemon, { command: ["yes"] });
  const process = await made;
  const chunk = new Uint8Array(65_536);
  const printing = (async () => {
    for (let count = 0; count < 256; count += 1) await process.print(chunk);
  })();
  await Bun.sleep(50);
  socket.destroy();
  await printing;
  expect(process.detached).toBe(true);
});
