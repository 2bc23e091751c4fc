/** Answers that break off in the middle, as they do when the daemon is killed: on Bun's transport; Node's reads bodies by the same function. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rejection } from "../../tests/support/fake-peer.ts";
import type { Transport } from "./transport.ts";
import { bunTransport } from "./transport-bun.ts";

const directory = mkdtempSync(join(tmpdir(), "mayfly-broken-"));
const socketPath = join(directory, "socket");
/** A part of a body, and then nothing: the rest of it never comes. */
const CUT = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";

const server = Bun.listen({
  unix: socketPath,
  socket: {
    data(socket, bytes) {
      socket.write(CUT);
      if (!Buffer.from(bytes).includes("GET /hangs")) socket.end();
    },
  },
});
afterAll(() => {
  server.stop(true);
  rmSync(directory, { recursive: true });
});

describe("an answer that breaks off", () => {
  let transport: Transport;
  beforeAll(() => {
    transport = bunTransport({ address: { socketPath }, token: undefined });
  });
  afterAll(() => transport.close());

  const broken = {
    code: "connection_failed",
    message: `The answer of the daemon at unix://${socketPath} broke off: it has ended, or the connection to it has`,
  };

  test("is an error of the connection where it is read as text", async () => {
    const answer = await transport.request({ method: "GET", path: "/" });
    expect(await rejection(answer.text())).toMatchObject(broken);
  });

  test("is one where it is read in chunks", async () => {
    const answer = await transport.request({ method: "GET", path: "/" });
    const read = async () => {
      for await (const chunk of answer.chunks()) expect(Buffer.from(chunk).toString()).toBe("hello");
    };
    expect(await rejection(read())).toMatchObject(broken);
  });

  test("is none for who has cancelled the request", async () => {
    const abort = new AbortController();
    const answer = await transport.request({ method: "GET", path: "/hangs", signal: abort.signal });
    const read = rejection(answer.text());
    abort.abort();
    expect(await read).toMatchObject({ code: "cancelled" });
  });

  test("is none for who leaves early", async () => {
    const answer = await transport.request({ method: "GET", path: "/hangs" });
    for await (const chunk of answer.chunks()) {
      expect(Buffer.from(chunk).toString()).toBe("hello");
      break;
    }
  });
});
