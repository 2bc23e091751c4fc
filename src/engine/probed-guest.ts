/** A guest with an application in it, as probes see it: through its agent. */
import type { AgentClient } from "../agent/client.ts";
import type { ExecSpec } from "../agent/requests.ts";
import { Deadline } from "../sys/deadline.ts";
import type { GuestConnection } from "./http-get.ts";
import { OutputTail } from "./output-tail.ts";
import type { ProbedGuest } from "./probes.ts";

/**
 * The probes' view of a guest.
 * @param process as what and where commands run in it.
 * @param output of the application.
 */
export function probedGuest(agent: AgentClient, process: Omit<ExecSpec, "argv">, output: OutputTail): ProbedGuest {
  return {
    output,
    exec: (command, deadline) => execToEnd(agent, { ...process, argv: command, killTree: true }, deadline),
    connect: (port, consumer, deadline) => connectTo(agent, port, consumer, deadline),
  };
}

/** How long the application has to close a connection after we have ended our direction, before it is reset. */
const CLOSE_MS = 500;

async function connectTo(
  agent: AgentClient,
  port: number,
  consumer: (chunk: Uint8Array) => void,
  deadline: Deadline,
): Promise<GuestConnection> {
  const ended = Promise.withResolvers<void>();
  let over = false;
  let room = Promise.withResolvers<void>();
  const tcp = agent.connect(
    { port },
    {
      data: (chunk) => {
        consumer(chunk);
        tcp.consumed(chunk.length);
      },
      end: () => ended.resolve(),
      writable: () => room.resolve(),
    },
  );
  tcp.closed.then(() => {
    over = true;
    ended.resolve();
    room.resolve();
  });
  try {
    await deadline.race(tcp.connected, `a connection to port ${port}`);
  } catch (error) {
    tcp.reset();
    throw error;
  }
  return {
    async write(bytes) {
      for (let sent = 0; sent < bytes.length; ) {
        sent += tcp.write(bytes.subarray(sent));
        if (sent === bytes.length || over) return;
        await room.promise;
        room = Promise.withResolvers<void>();
      }
    },
    ended: ended.promise,
    async close() {
      tcp.end();
      await Deadline.after(CLOSE_MS)
        .race(tcp.closed, "the connection's end")
        .catch(() => tcp.reset());
    },
  };
}

async function execToEnd(
  agent: AgentClient,
  spec: ExecSpec,
  deadline: Deadline,
): Promise<{ exitCode: number; output: string }> {
  const tail = new OutputTail();
  const process = agent.exec(spec, tail.take, deadline);
  try {
    const { code, signal } = await deadline.race(process.exited, `the end of ${spec.argv.join(" ")}`);
    return { exitCode: code ?? 128 + (signal ?? 0), output: tail.text };
  } finally {
    await process.release(deadline).catch(() => undefined);
  }
}
