import { expect, test } from "bun:test";
import { sampleVm } from "../../tests/support/samples.ts";
import type { StreamReply, StreamRequest } from "../contract/api.ts";
import { openProcess } from "./process.ts";
import type { SocketEvents, Transport } from "./transport.ts";

/** A transport whose one socket plays back what a daemon sends; while it is paused nothing arrives. */
function playing(script: (reply: (message: StreamReply) => void, output: (text: string) => void) => void): Transport {
  const arrivals: (() => void)[] = [];
  let paused = false;
  const pump = () => {
    while (!paused) {
      const next = arrivals.shift();
      if (next === undefined) return;
      next();
    }
  };
  const openSocket = async (_path: string, events: SocketEvents) => ({
    text: (message: string) => {
      const { type }: StreamRequest = JSON.parse(message);
      if (type !== "create") return;
      script(
        (reply) => arrivals.push(() => events.text(JSON.stringify(reply))),
        (text) => arrivals.push(() => events.binary(Buffer.concat([Buffer.of(1), Buffer.from(text)]))),
      );
      queueMicrotask(pump);
    },
    binary: () => undefined,
    drained: async () => undefined,
    pause: () => {
      paused = true;
    },
    resume: () => {
      paused = false;
      queueMicrotask(pump);
    },
    close: () => undefined,
  });
  const request = () => Promise.reject(new Error("not asked for"));
  return { request, openSocket, close: async () => undefined };
}

test("output that comes before the daemon says that the process runs is kept for whoever waits for that first", async () => {
  const transport = playing((reply, output) => {
    output("one ");
    output("two ");
    reply({ type: "started", vm: sampleVm });
    output("three");
    reply({ type: "exit", exitCode: 4, signal: 0 });
  });
  const process = await openProcess(transport, "/v1/vms/run", { type: "create", request: { command: ["x"] } });
  expect(await process.collect()).toEqual({ exitCode: 4, signal: 0, stdout: "one two three", stderr: "" });
});
