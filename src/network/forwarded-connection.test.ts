/** When the guest is connected to; the rest is tested with real sockets in port-forwarder.test.ts. */
import { expect, test } from "bun:test";
import type { TcpPeer } from "../sys/tcp-listener.ts";
import { ForwardedConnection, type GuestEvents } from "./forwarded-connection.ts";

/** A new client's connection, and what became of it. */
function accepted() {
  const seen: string[] = [];
  const peer: TcpPeer = {
    ...{ remoteAddress: "127.0.0.1", remotePort: 1 },
    write: (bytes) => bytes.length,
    end: () => void seen.push("client: end"),
    reset: () => void seen.push("client: reset"),
    resetWhenFlushed: () => undefined,
    pause: () => undefined,
    resume: () => undefined,
  };
  const joined = Promise.withResolvers<void>();
  const connection = new ForwardedConnection(peer, { leftBytes: 1000 }, () => void seen.push("over"));
  const connect = (_: GuestEvents) => {
    seen.push("connect");
    joined.resolve();
    return {
      closed: new Promise<{ reason: string }>(() => undefined),
      write: (bytes: Uint8Array) => {
        seen.push(`guest: ${Buffer.from(bytes)}`);
        return bytes.length;
      },
      end: () => void seen.push("guest: end"),
      reset: () => void seen.push("guest: reset"),
      consumed: () => undefined,
    };
  };
  return { seen, connection, connect, joined: joined.promise };
}

const bytes = (text: string) => new TextEncoder().encode(text);

test("the guest is connected to with the client's first bytes", () => {
  const { seen, connection, connect } = accepted();
  connection.joinWithFirstBytes(connect);
  expect(seen).toEqual([]);
  connection.clientEvents.data(bytes("first"));
  connection.clientEvents.data(bytes("second"));
  expect(seen).toEqual(["connect", "guest: first", "guest: second"]);
});

test("or with its end", () => {
  const { seen, connection, connect } = accepted();
  connection.joinWithFirstBytes(connect);
  connection.clientEvents.end();
  expect(seen).toEqual(["connect", "guest: end"]);
});

test("or a moment later, when the client waits for the guest to speak", async () => {
  const { seen, connection, connect, joined } = accepted();
  connection.joinWithFirstBytes(connect);
  await joined;
  connection.clientEvents.data(bytes("first"));
  expect(seen).toEqual(["connect", "guest: first"]);
});

test("and not at all when the client has gone", async () => {
  const { seen, connection, connect } = accepted();
  connection.joinWithFirstBytes(connect);
  connection.clientEvents.closed(true);
  const later = accepted();
  later.connection.joinWithFirstBytes(later.connect);
  await later.joined;
  expect(seen).toEqual(["over"]);
});

test("a guest that cannot be connected to resets the client, whenever that is tried", () => {
  const { seen, connection } = accepted();
  connection.joinWithFirstBytes(() => {
    throw new Error("no room");
  });
  connection.clientEvents.data(bytes("first"));
  expect(seen).toEqual(["client: reset", "over"]);
});
