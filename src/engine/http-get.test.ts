import { describe, expect, test } from "bun:test";
import { connect as connectTcp, createServer, type Socket } from "node:net";
import { rejection } from "../../tests/support/fake-peer.ts";
import { Deadline } from "../sys/deadline.ts";
import { type GuestConnector, httpGet } from "./http-get.ts";

/** A connector to a port of this host, in the guest's place. */
const connector: GuestConnector = async (port, consumer) => {
  const socket = connectTcp(port, "127.0.0.1");
  const ended = Promise.withResolvers<void>();
  ended.promise.catch(() => undefined);
  socket.on("data", consumer);
  socket.on("end", () => ended.resolve());
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  socket.on("error", (error) => ended.reject(error));
  return {
    write: async (bytes) => socket.write(bytes),
    ended: ended.promise,
    close: async () => {
      socket.destroy();
    },
  };
};

/** A server whose connections are handled by `answer`, which gets the request. */
async function serving(answer: (socket: Socket, request: string) => void): Promise<{ port: number } & AsyncDisposable> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (bytes) => answer(socket, bytes.toString()));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    port: address.port,
    [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

async function statusOf(answer: (socket: Socket, request: string) => void, path = "/"): Promise<number | undefined> {
  await using server = await serving(answer);
  return await httpGet(connector, { port: server.port, path }, Deadline.after(5_000));
}

describe("a GET", () => {
  test("has a status, whatever the answer's framing is", async () => {
    const whole = (text: string) => statusOf((socket) => socket.end(text));
    const open = (text: string) => statusOf((socket) => void socket.write(text));
    expect(await whole("HTTP/1.1 200 OK\r\n\r\nuntil the end")).toBe(200);
    expect(await whole("HTTP/1.0 404 \r\n\r\n")).toBe(404);
    // These servers do not close the connection, though they were asked to.
    expect(await open("HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nhello")).toBe(302);
    expect(await open("HTTP/1.1 204 No Content\r\n\r\n")).toBe(204);
    expect(await open("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).toBe(200);
    expect(await open("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Busy\r\ncontent-length:0\r\n\r\n")).toBe(503);
  });

  test("asks for its path and for the connection's end", async () => {
    let asked = "";
    await statusOf((socket, request) => {
      asked = request;
      socket.end("HTTP/1.1 200 OK\r\n\r\n");
    }, "/health?full=1");
    expect(asked).toStartWith("GET /health?full=1 HTTP/1.1\r\nHost: localhost:");
    expect(asked).toContain("\r\nConnection: close\r\n");
    expect(asked).toEndWith("\r\n\r\n");
  });

  test("reads an answer to its end, in pieces of any size", async () => {
    const body = Buffer.alloc(300_000, 120);
    const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`;
    let sent = false;
    const status = await statusOf((socket) => {
      for (const byte of Buffer.from(head)) socket.write(Buffer.from([byte]));
      socket.write(body.subarray(0, 1), () => socket.end(body.subarray(1), () => (sent = true)));
    });
    expect([status, sent]).toEqual([200, true]);
  });

  test("is not answered by what is no HTTP, by nothing, or by a head without an end", async () => {
    expect(await statusOf((socket) => socket.end("SSH-2.0-x\r\n\r\n"))).toBeUndefined();
    expect(await statusOf((socket) => socket.end())).toBeUndefined();
    expect(await statusOf((socket) => void socket.write(Buffer.alloc(100_000, 97)))).toBeUndefined();
    expect(await statusOf((socket) => void socket.write("HTTP/2 200\r\n\r\n"))).toBeUndefined();
  });

  test("ends at its deadline", async () => {
    await using server = await serving(() => undefined);
    const target = { port: server.port, path: "/" };
    expect((await rejection(httpGet(connector, target, Deadline.after(50)))).code).toBe("deadline_exceeded");
    const abort = AbortSignal.abort();
    expect((await rejection(httpGet(connector, target, Deadline.after(5_000, abort)))).code).toBe("cancelled");
  });
});
