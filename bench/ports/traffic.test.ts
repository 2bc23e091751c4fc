import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Deadline } from "../../src/sys/deadline.ts";
import { findTool } from "../../src/sys/tool.ts";
import { firstAnswer, freePort } from "../app/first-http.ts";
import { compileService } from "./service.ts";
import { giveBytes, sendRequests, takeBytes } from "./traffic.ts";

const soon = () => Deadline.after(10_000);

test.skipIf(findTool("musl-gcc") === undefined)("the service answers what the client asks", async () => {
  const directory = mkdtempSync(join(tmpdir(), "mayfly-ports-"));
  const [http, bytes] = [freePort(), freePort()];
  const program = await compileService(directory, AbortSignal.timeout(10_000));
  await using service = Bun.spawn([program, String(http), String(bytes)]);
  try {
    expect((await firstAnswer(http, soon())).body).toBe("from a guest.\n");
    for (const keepAlive of [true, false]) {
      const { count, tookMs } = await sendRequests({ port: http, connections: 4, keepAlive, lengthMs: 50 }, soon());
      expect(count).toBeGreaterThan(8);
      expect(tookMs).toBeGreaterThan(49);
    }
    expect(await takeBytes(bytes, 3_000_001, soon())).toBeGreaterThan(0);
    expect(await giveBytes(bytes, 3_000_001, soon())).toBeGreaterThan(0);
  } finally {
    service.kill();
    rmSync(directory, { recursive: true, force: true });
  }
});

test("a service that hangs up fails the sample", async () => {
  using listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket) => void socket.end() },
  });
  const load = { port: listener.port, connections: 1, keepAlive: false, lengthMs: 5000 };
  expect(sendRequests(load, soon())).rejects.toThrow("closed before the answer");
  expect(takeBytes(listener.port, 10, soon())).rejects.toThrow("closed too early");
});
