/** Real sockets of this host on one side, a guest in memory on the other. */
import { describe, expect, test } from "bun:test";
import { TcpClient } from "../../tests/support/tcp-client.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import type { GuestEvents, GuestStream } from "./forwarded-connection.ts";
import { type GuestConnector, PortForwarder } from "./port-forwarder.ts";

const soon = <T>(promise: Promise<T>, what: string) => Deadline.after(5000).race(promise, what);

/** A guest's end that takes as much as the test allows. */
class FakeGuest implements GuestStream {
  readonly #closed = Promise.withResolvers<{ reason: string }>();
  readonly closed = this.#closed.promise;
  readonly taken: Buffer[] = [];
  readonly #waiters = new Set<() => void>();
  allowed = Number.POSITIVE_INFINITY;
  consumedBytes = 0;
  ended = false;
  wasReset = false;

  constructor(readonly events: GuestEvents) {}

  write(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.allowed);
    this.allowed -= taken;
    this.taken.push(Buffer.from(bytes.subarray(0, taken)));
    this.#wake();
    return taken;
  }
  end(): void {
    this.ended = true;
    this.#wake();
  }
  reset(): void {
    this.wasReset = true;
    this.#closed.resolve({ reason: "dropped" });
    this.#wake();
  }
  consumed(byteCount: number): void {
    this.consumedBytes += byteCount;
    this.#wake();
  }

  /** Lets it take more. */
  allow(byteCount: number): void {
    this.allowed = byteCount;
    this.events.writable();
  }
  close(reason: string): void {
    this.#closed.resolve({ reason });
  }
  get text(): string {
    return Buffer.concat(this.taken).toString();
  }

  /** Resolves once it is so. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.add(resolve);
      await soon(promise, `the guest's state (it has taken ${this.text.length} bytes)`);
      this.#waiters.delete(resolve);
    }
  }
  #wake(): void {
    for (const wake of this.#waiters) wake();
  }
}

/** A forwarder whose guests the test holds, in the order of their connections. */
function forward(options: ConstructorParameters<typeof PortForwarder>[2] = {}, address = "127.0.0.1") {
  const guests: FakeGuest[] = [];
  const arrived: ((guest: FakeGuest) => void)[] = [];
  const connect: GuestConnector = (_target, events) => {
    const guest = new FakeGuest(events);
    guests.push(guest);
    arrived.shift()?.(guest);
    return guest;
  };
  const forwarder = new PortForwarder({ address, port: 0, guestPort: 80 }, connect, options);
  const join = async () => {
    const { promise, resolve } = Promise.withResolvers<FakeGuest>();
    arrived.push(resolve);
    const client = await TcpClient.open(forwarder.port, address === "::" ? "::1" : address);
    return { client, guest: await soon(promise, "the connection to the guest") };
  };
  return { forwarder, guests, join, [Symbol.dispose]: () => forwarder.close() };
}

async function untilEmpty(forwarder: PortForwarder): Promise<void> {
  for (let i = 0; i < 500 && forwarder.connections > 0; i++) await Bun.sleep(2);
  expect(forwarder.connections).toBe(0);
}

describe("bytes", () => {
  test("go both ways, and each side's end is passed on by itself", async () => {
    using forwarding = forward();
    const { client, guest } = await forwarding.join();
    await client.send("request");
    await guest.until(() => guest.text === "request");
    client.finish();
    await guest.until(() => guest.ended);
    guest.events.data(Buffer.from("answer after the end"));
    guest.events.end();
    guest.close("finished");
    await soon(client.ended.promise, "the end");
    expect(client.text).toBe("answer after the end");
    expect(guest.consumedBytes).toBe(20);
    await untilEmpty(forwarding.forwarder);
  });

  test("a guest that ends first is still sent to", async () => {
    using forwarding = forward();
    const { client, guest } = await forwarding.join();
    guest.events.data(Buffer.from("bye"));
    guest.events.end();
    await soon(client.ended.promise, "the end");
    await client.send("still here");
    await guest.until(() => guest.text === "still here");
    client.socket.end();
    await guest.until(() => guest.ended);
    guest.close("finished");
    await untilEmpty(forwarding.forwarder);
    expect(client.text).toBe("bye");
    expect(guest.wasReset).toBe(false);
  });

  test("a guest that takes nothing stops its client, and no other", async () => {
    using forwarding = forward();
    const { client, guest } = await forwarding.join();
    guest.allowed = 1000;
    const bytes = Buffer.alloc(8_000_000, "0123456789");
    let sent = false;
    const sending = client.send(bytes).then(() => {
      sent = true;
    });
    const other = await forwarding.join();
    await other.client.send(Buffer.from("moves"));
    await other.guest.until(() => other.guest.text === "moves");
    expect(guest.text.length).toBe(1000);
    expect(sent).toBe(false);
    guest.allow(Number.POSITIVE_INFINITY);
    await sending;
    client.finish();
    await guest.until(() => guest.ended);
    expect(Buffer.concat(guest.taken).equals(bytes)).toBe(true);
  });

  test("what a slow client has not taken is not given back to the guest", async () => {
    using forwarding = forward();
    const { client, guest } = await forwarding.join();
    client.socket.pause();
    const part = Buffer.alloc(262_144, "x");
    for (let i = 0; i < 64; i++) guest.events.data(part);
    expect(guest.consumedBytes).toBeLessThan(64 * part.length);
    client.socket.resume();
    await guest.until(() => guest.consumedBytes === 64 * part.length);
    guest.events.end();
    await soon(client.ended.promise, "the end");
    expect(client.text.length).toBe(64 * part.length);
  });

  test("clients whose bytes nobody takes are bounded in sum", async () => {
    using forwarding = forward({ heldLimitBytes: 100_000 });
    const { client, guest } = await forwarding.join();
    guest.allowed = 0;
    await client.send(Buffer.alloc(90_000));
    const other = await forwarding.join();
    other.guest.allowed = 0;
    client.socket.resume();
    await other.client.send(Buffer.alloc(90_000)).catch(() => undefined);
    await other.guest.until(() => other.guest.wasReset || guest.wasReset);
    expect([guest.wasReset, other.guest.wasReset].filter(Boolean).length).toBe(1);
  });
});

describe("what breaks", () => {
  test("a client's reset reaches the guest", async () => {
    using forwarding = forward();
    const { client, guest } = await forwarding.join();
    client.socket.terminate();
    await guest.until(() => guest.wasReset);
    await untilEmpty(forwarding.forwarder);
  });

  test("a client's reset reaches the guest while the client is not read", async () => {
    using forwarding = forward();
    const { client, guest } = await forwarding.join();
    guest.allowed = 0;
    await client.send(Buffer.alloc(10_000));
    client.socket.terminate();
    await guest.until(() => guest.wasReset);
    await untilEmpty(forwarding.forwarder);
  });

  test("a guest's reset reaches the client after what came before it", async () => {
    using forwarding = forward();
    const { client, guest } = await forwarding.join();
    guest.events.data(Buffer.from("last words"));
    await Bun.sleep(20);
    guest.close("reset");
    expect(await soon(client.closed.promise, "the reset")).toBe("ECONNRESET");
    expect(client.text).toBe("last words");
    await untilEmpty(forwarding.forwarder);
  });

  for (const reason of ["refused", "lost"]) {
    test(`a connection that is ${reason} in the guest resets the client's`, async () => {
      using forwarding = forward();
      const { client, guest } = await forwarding.join();
      guest.close(reason);
      expect(await soon(client.closed.promise, "the reset")).toBe("ECONNRESET");
      await untilEmpty(forwarding.forwarder);
    });
  }

  test("a guest that cannot be connected to at all", async () => {
    const refuse = () => {
      throw new MayflyError("limit_reached", "no place");
    };
    using forwarder = new PortForwarder({ address: "127.0.0.1", port: 0, guestPort: 80 }, refuse);
    const client = await TcpClient.open(forwarder.port);
    expect(await soon(client.closed.promise, "the reset")).toBe("ECONNRESET");
    await untilEmpty(forwarder);
  });
});

describe("the hook", () => {
  test("holds a connection until it has resolved; what was sent meanwhile is not lost", async () => {
    const gate = Promise.withResolvers<void>();
    const seen: unknown[] = [];
    using forwarding = forward({
      onConnection: (client) => {
        seen.push(client);
        return gate.promise;
      },
    });
    const joining = forwarding.join();
    await Bun.sleep(20);
    expect(forwarding.guests.length).toBe(0);
    gate.resolve();
    const { client, guest } = await joining;
    await client.send("hello");
    await guest.until(() => guest.text === "hello");
    expect(seen).toEqual([{ address: "127.0.0.1", port: client.socket.localPort }]);
  });

  test("that rejects resets the client", async () => {
    using forwarding = forward({ onConnection: () => Promise.reject(new Error("will not wake")) });
    const client = await TcpClient.open(forwarding.forwarder.port);
    expect(await soon(client.closed.promise, "the reset")).toBe("ECONNRESET");
    expect(forwarding.guests.length).toBe(0);
  });

  test("makes no connection for a client that has gone", async () => {
    const gate = Promise.withResolvers<void>();
    using forwarding = forward({ onConnection: () => gate.promise });
    const client = await TcpClient.open(forwarding.forwarder.port);
    await Bun.sleep(10);
    client.socket.terminate();
    await untilEmpty(forwarding.forwarder);
    gate.resolve();
    await Bun.sleep(10);
    expect(forwarding.guests.length).toBe(0);
  });
});

describe("the host's port", () => {
  test("that somebody has is named with its holder", () => {
    using first = forward();
    const { port } = first.forwarder;
    const again = () => new PortForwarder({ address: "127.0.0.1", port, guestPort: 80 }, () => new FakeGuest(nobody));
    expect(again).toThrow(`Cannot listen on 127.0.0.1:${port}: `);
    try {
      again();
    } catch (error) {
      expect(error).toBeInstanceOf(MayflyError);
      expect(error).toMatchObject({ code: "port_in_use", details: { address: "127.0.0.1", port, pid: process.pid } });
    }
  });

  test("is free again after close, whose connections are reset", async () => {
    const forwarding = forward();
    const { client, guest } = await forwarding.join();
    forwarding.forwarder.close();
    forwarding.forwarder.close();
    expect(await soon(client.closed.promise, "the reset")).toBe("ECONNRESET");
    expect(guest.wasReset).toBe(true);
    const { port } = forwarding.forwarder;
    using again = new PortForwarder({ address: "127.0.0.1", port, guestPort: 80 }, () => new FakeGuest(nobody));
    expect(again.port).toBe(port);
  });

  test("can be an IPv6 one beside the same IPv4 one", async () => {
    using six = forward({}, "::");
    const { port } = six.forwarder;
    using four = new PortForwarder({ address: "0.0.0.0", port, guestPort: 80 }, () => new FakeGuest(nobody));
    expect(four.port).toBe(port);
    const { client, guest } = await six.join();
    await client.send("six");
    await guest.until(() => guest.text === "six");
  });

  test("of an address that this host does not have", () => {
    const listen = () =>
      new PortForwarder({ address: "192.0.2.77", port: 0, guestPort: 80 }, () => new FakeGuest(nobody));
    expect(listen).toThrow("Cannot listen on 192.0.2.77:0: this host does not have that address");
  });

  test("takes a thousand connections at once", async () => {
    using forwarding = forward();
    const joined = await Promise.all(Array.from({ length: 1000 }, () => TcpClient.open(forwarding.forwarder.port)));
    await Promise.all(joined.map((client, i) => client.send(Buffer.from(`${i}`))));
    // The guest is connected to with a client's first bytes, which may be a moment later.
    const arrived = () => forwarding.guests.filter((guest) => guest.text !== "").length;
    for (let i = 0; i < 1000 && arrived() < 1000; i++) await Bun.sleep(2);
    expect(forwarding.forwarder.connections).toBe(1000);
    const numbers = forwarding.guests.map((guest) => Number(guest.text)).sort((a, b) => a - b);
    expect(numbers).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    for (const client of joined) client.socket.terminate();
    await untilEmpty(forwarding.forwarder);
  });
});

const nobody: GuestEvents = { data: () => undefined, end: () => undefined, writable: () => undefined };
