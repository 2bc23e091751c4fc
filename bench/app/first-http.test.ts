import { afterEach, expect, test } from "bun:test";
import { createServer, type Server, type Socket } from "node:net";
import { Deadline, nowMs } from "../../src/sys/deadline.ts";
import { firstAnswer, freePort } from "./first-http.ts";

const LIMIT_MS = 5_000;
const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** Listens and answers the n-th connection with the n-th function, the last one from then on. */
async function serve(port: number, ...answers: ((socket: Socket) => void)[]): Promise<void> {
  let connections = 0;
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    const answer = answers[Math.min(connections, answers.length - 1)];
    connections += 1;
    socket.once("data", () => answer?.(socket));
  });
  servers.push(server);
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(port, "127.0.0.1", resolve);
  await promise;
}

const page = (body: string) => `HTTP/1.1 200 OK\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;

test("a port that opens later is asked until it answers", async () => {
  const port = freePort();
  const startedMs = nowMs();
  const answer = firstAnswer(port, Deadline.after(LIMIT_MS));
  setTimeout(() => void serve(port, (socket) => socket.end(page("hello"))), 50);
  const { atMs, body, attempts } = await answer;
  expect(body).toBe("hello");
  expect(attempts).toBeGreaterThan(5);
  expect(atMs - startedMs).toBeGreaterThan(45);
});

test("only a whole answer with status 200 counts", async () => {
  const port = freePort();
  await serve(
    port,
    (socket) => socket.destroy(),
    (socket) => socket.end("HTTP/1.1 503 Not yet\r\ncontent-length: 0\r\n\r\n"),
    (socket) => socket.end(page("cut short").slice(0, -3)),
    (socket) => socket.end("garbage\r\n\r\n"),
    (socket) => socket.end(page("whole")),
  );
  expect(await firstAnswer(port, Deadline.after(LIMIT_MS))).toMatchObject({ body: "whole", attempts: 5 });
});

test("the time is that of the last byte", async () => {
  const port = freePort();
  const text = page("in two parts, ä included");
  await serve(port, (socket) => {
    socket.write(text.slice(0, 45));
    setTimeout(() => socket.end(text.slice(45)), 40);
  });
  const startedMs = nowMs();
  const { atMs, body } = await firstAnswer(port, Deadline.after(LIMIT_MS));
  expect(body).toBe("in two parts, ä included");
  expect(atMs - startedMs).toBeGreaterThan(38);
});

test("the deadline and the signal end it", async () => {
  const port = freePort();
  expect(firstAnswer(port, Deadline.after(30))).rejects.toThrow(/ms|in time/);
  expect(firstAnswer(port, Deadline.after(LIMIT_MS, AbortSignal.timeout(30)))).rejects.toMatchObject({
    code: "cancelled",
  });
});
