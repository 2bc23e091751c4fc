import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { QmpClient } from "./client.ts";

const directory = mkdtempSync(join(tmpdir(), "mayfly-qmp-"));
const GREETING = '{"QMP":{"version":{"qemu":{"micro":0,"minor":0,"major":10}},"capabilities":["oob"]}}\r\n';
const soon = (ms = 2_000) => Deadline.after(ms);
let made = 0;

interface Command {
  execute: string;
  arguments?: unknown;
  id: number;
}

/** A peer that speaks as it is told. */
class Peer {
  readonly path = join(directory, `socket-${made++}`);
  readonly commands: Command[] = [];
  #socket: Socket<undefined> | undefined;
  #text = "";
  onCommand: (command: Command) => void;
  readonly #server;

  constructor(onCommand: (peer: Peer, command: Command) => void, greeting: string | undefined = GREETING) {
    this.onCommand = (command) => onCommand(this, command);
    this.#server = Bun.listen<undefined>({
      unix: this.path,
      socket: {
        open: (socket) => {
          this.#socket = socket;
          if (greeting !== "") socket.write(greeting);
        },
        data: (_socket, bytes) => this.#take(bytes),
      },
    });
  }

  #take(bytes: Uint8Array): void {
    this.#text += Buffer.from(bytes).toString();
    for (let end = this.#text.indexOf("\n"); end >= 0; end = this.#text.indexOf("\n")) {
      const command: Command = JSON.parse(this.#text.slice(0, end));
      this.#text = this.#text.slice(end + 1);
      this.commands.push(command);
      this.onCommand(command);
    }
  }

  raw(text: string): void {
    this.#socket?.write(text);
    this.#socket?.flush();
  }

  send(message: object): void {
    this.raw(`${JSON.stringify(message)}\r\n`);
  }

  hangUp(): void {
    this.#socket?.end();
  }

  stop(): void {
    this.#server.stop(true);
  }
}

const peers: Peer[] = [];
function peer(onCommand: (peer: Peer, command: Command) => void, greeting?: string): Peer {
  const one = new Peer(onCommand, greeting);
  peers.push(one);
  return one;
}
/** Agrees to capabilities and leaves the rest to `onCommand`. */
function polite(onCommand: (peer: Peer, command: Command) => void = () => undefined): Peer {
  return peer((self, command) => {
    if (command.execute === "qmp_capabilities") self.send({ return: {}, id: command.id });
    else onCommand(self, command);
  });
}

async function failure(promise: Promise<unknown>): Promise<MayflyError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw new Error(`expected a MayflyError, got ${error}`);
}

afterEach(() => {
  for (const one of peers.splice(0)) one.stop();
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe("connecting", () => {
  test("waits for the greeting and negotiates", async () => {
    const one = polite();
    const client = await QmpClient.connect(one.path, soon());
    expect(client.state).toBe("ready");
    expect(one.commands).toEqual([{ execute: "qmp_capabilities", id: 0 }]);
    client.close();
    expect(client.state).toBe("closed");
  });

  test("with a first command sends that before it is greeted, and has its answer", async () => {
    const unasked: Command[] = [];
    const one: Peer = peer((self, command) => {
      unasked.push(command);
      if (unasked.length < 2) return;
      self.send({ QMP: { version: { qemu: { major: 10, minor: 0, micro: 0 }, package: "" }, capabilities: [] } });
      for (const { id } of unasked) self.send({ return: {}, id });
    }, "");
    const client = await QmpClient.connect(one.path, soon(), "cont");
    expect(client.state).toBe("ready");
    expect(unasked.map(({ execute }) => execute)).toEqual(["qmp_capabilities", "cont"]);
    const refusing = polite((self, { id }) => self.send({ error: { class: "GenericError", desc: "no" }, id }));
    expect((await failure(QmpClient.connect(refusing.path, soon(), "cont"))).code).toBe("qmp_command_failed");
  });

  test("to nobody fails", async () => {
    expect((await failure(QmpClient.connect(join(directory, "nobody"), soon()))).code).toBe("connection_failed");
  });

  test("to a peer that does not greet ends at the deadline", async () => {
    const one = peer(() => undefined, "");
    expect((await failure(QmpClient.connect(one.path, soon(80)))).code).toBe("deadline_exceeded");
  });

  test("to a peer that greets and then says nothing ends at the deadline", async () => {
    const one = peer(() => undefined);
    expect((await failure(QmpClient.connect(one.path, soon(80)))).code).toBe("deadline_exceeded");
  });

  test("to a peer that does not negotiate fails with what it says", async () => {
    const one = peer((self, { id }) => self.send({ error: { class: "GenericError", desc: "no" }, id }));
    const error = await failure(QmpClient.connect(one.path, soon()));
    expect(error.code).toBe("qmp_command_failed");
    expect(error.details.qmp).toEqual({ class: "GenericError", description: "no" });
  });

  test("to a peer that hangs up fails", async () => {
    const one = peer((self) => self.hangUp());
    expect((await failure(QmpClient.connect(one.path, soon()))).code).toBe("qmp_disconnected");
  });

  for (const garbage of [
    "HTTP/1.1 200 OK\r\n",
    '{"surprise":1}\r\n',
    "\u0000\u0001\u0002\n",
    '{"return":{},"id":99}\r\n',
  ]) {
    test(`to a peer that says ${JSON.stringify(garbage)} is a violation`, async () => {
      const one = peer(() => undefined, garbage);
      expect((await failure(QmpClient.connect(one.path, soon()))).code).toBe("qmp_protocol_violation");
    });
  }

  test("to a peer whose line does not end is a violation", async () => {
    const one = peer(() => undefined, "x".repeat(1 << 16));
    const connecting = failure(QmpClient.connect(one.path, soon()));
    const more = setInterval(() => one.raw("y".repeat(1 << 17)), 1);
    expect((await connecting).code).toBe("qmp_protocol_violation");
    clearInterval(more);
  });
});

describe("commands", () => {
  test("get the answers with their ids, in whatever order", async () => {
    const waiting: Command[] = [];
    const one = polite((self, command) => {
      waiting.push(command);
      if (waiting.length === 3) for (const { id, execute } of waiting.reverse()) self.send({ return: execute, id });
    });
    const client = await QmpClient.connect(one.path, soon());
    const answers = ["a", "b", "c"].map((name) => client.execute(name, undefined, soon()));
    expect(await Promise.all(answers)).toEqual(["a", "b", "c"]);
    client.close();
  });

  test("carry their arguments, and fail with QEMU's class and words", async () => {
    const one = polite((self, { id }) =>
      self.send({ error: { class: "CommandNotFound", desc: "The command x has not been found" }, id }),
    );
    const client = await QmpClient.connect(one.path, soon());
    const error = await failure(client.execute("x", { a: [1, "b,c"] }, soon()));
    expect(one.commands[1]).toEqual({ execute: "x", arguments: { a: [1, "b,c"] }, id: 1 });
    expect(error.code).toBe("qmp_command_failed");
    expect(error.message).toContain("The command x has not been found");
    expect(client.state).toBe("ready");
    client.close();
  });

  test("are answered though the answer comes a byte at a time", async () => {
    const one = polite((self, { id }) => {
      for (const letter of `{"return":"slow","id":${id}}\r\n`) self.raw(letter);
    });
    const client = await QmpClient.connect(one.path, soon());
    expect(await client.execute("x", undefined, soon())).toBe("slow");
    client.close();
  });

  test("are answered between events", async () => {
    const one = polite((self, { id }) =>
      self.raw(`{"event":"STOP","timestamp":{"seconds":1}}\r\n{"return":1,"id":${id}}\r\n{"event":"RESUME"}\r\n`),
    );
    const client = await QmpClient.connect(one.path, soon());
    const events: string[] = [];
    client.onEvent = ({ name }) => events.push(name);
    const resumed = client.waitForEvent(({ name }) => name === "RESUME", "the resumption", soon());
    expect(await client.execute("x", undefined, soon())).toBe(1);
    expect((await resumed).name).toBe("RESUME");
    expect(events).toEqual(["STOP", "RESUME"]);
    client.close();
  });

  test("that are not answered end at their deadline, and their late answer is taken", async () => {
    const held: number[] = [];
    const one = polite((self, { id, execute }) => {
      if (execute === "slow") held.push(id);
      else for (const each of [...held, id]) self.send({ return: execute, id: each });
    });
    const client = await QmpClient.connect(one.path, soon());
    expect((await failure(client.execute("slow", undefined, soon(30)))).code).toBe("deadline_exceeded");
    expect(await client.execute("fast", undefined, soon())).toBe("fast");
    expect(client.state).toBe("ready");
    client.close();
  });

  test("after the end are refused with its cause", async () => {
    const one = polite();
    const client = await QmpClient.connect(one.path, soon());
    client.close();
    const error = await failure(client.execute("x", undefined, soon()));
    expect(error.code).toBe("qmp_disconnected");
    expect((await failure(client.waitForEvent(() => true, "anything", soon()))).code).toBe("qmp_disconnected");
    client.close();
    expect(await client.closed).toBe(error);
  });
});

describe("the end of a session", () => {
  const ENDS: readonly { name: string; end: (peer: Peer) => void; code: MayflyError["code"] }[] = [
    { name: "QEMU hangs up", end: (one) => one.hangUp(), code: "qmp_disconnected" },
    { name: "QEMU is gone", end: (one) => one.stop(), code: "qmp_disconnected" },
    { name: "garbage comes", end: (one) => one.raw("garbage\n"), code: "qmp_protocol_violation" },
    {
      name: "an answer to nothing comes",
      end: (one) => one.send({ return: 1, id: 77 }),
      code: "qmp_protocol_violation",
    },
    { name: "an answer without an id comes", end: (one) => one.send({ return: 1 }), code: "qmp_protocol_violation" },
    { name: "a second answer comes", end: (one) => one.send({ return: 1, id: 0 }), code: "qmp_protocol_violation" },
  ];
  for (const { name, end, code } of ENDS) {
    test(`when ${name} rejects everything that waits with the one cause`, async () => {
      const one = polite();
      const client = await QmpClient.connect(one.path, soon());
      const waiting = [
        failure(client.execute("a", undefined, soon())),
        failure(client.execute("b", undefined, soon())),
        failure(client.waitForEvent(() => true, "anything", soon())),
      ];
      end(one);
      const causes = await Promise.all(waiting);
      expect(causes.map((cause) => cause.code)).toEqual([code, code, code]);
      expect(new Set([...causes, await client.closed]).size).toBe(1);
      expect(client.state).toBe("closed");
      one.raw("more garbage\n");
      client.close();
      expect((await client.closed).code).toBe(causes[0]?.code ?? "qmp_disconnected");
    });
  }
});
