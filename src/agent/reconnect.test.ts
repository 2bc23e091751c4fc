/** The daemon goes and comes back, against the real agent: nothing of a process is lost or doubled. */
import { describe, expect, test } from "bun:test";
import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { rejection, settle, soon } from "../../tests/support/fake-peer.ts";
import { collector, ENV, HostAgent, hostAgentProgram } from "../../tests/support/host-agent.ts";
import { Deadline } from "../sys/deadline.ts";
import type { AgentClient } from "./client.ts";
import type { AgentProcess } from "./process.ts";

const here =
  hostAgentProgram === undefined ? "skipped: there is no musl-gcc to build the agent with" : "the real agent";
const TOTAL = 6_000_000;
const CUTS = 40;

/** What a daemon keeps on disk of one process: its output. Fails when bytes do not follow directly on those before. */
class Log {
  readonly bytes = Buffer.alloc(TOTAL);
  length = 0;
  /** Told of the length after each append. */
  grown: () => void = () => undefined;

  append(chunk: Uint8Array, offset: number): void {
    if (offset !== this.length) throw new Error(`bytes from ${offset} on follow on ${this.length}`);
    this.bytes.set(chunk, offset);
    this.length += chunk.length;
    this.grown();
  }
}

/** Feeds standard input from wherever it goes on, until the end or the connection's. */
async function feed(process: AgentProcess, source: Buffer): Promise<void> {
  await process.pid;
  for (let at = process.stdin.offset; at < source.length; at += 30_000) {
    await process.stdin.write(source.subarray(at, at + 30_000));
  }
  process.stdin.end();
}

/** Resolves when the log has reached `length` bytes. */
function reached(log: Log, length: number): Promise<void> {
  return new Promise((resolve) => {
    log.grown = () => {
      if (log.length >= length) resolve();
    };
    log.grown();
  });
}

describe.skipIf(hostAgentProgram === undefined)(here, () => {
  for (const consumer of ["at once", "later"] as const) {
    test(`a transfer cut ${CUTS} times arrives whole when its output is kept ${consumer}`, async () => {
      await using agent = await HostAgent.start();
      const source = Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)));
      const input = Buffer.concat(Array.from({ length: Math.ceil(TOTAL / source.length) }, () => source)).subarray(
        0,
        TOTAL,
      );
      for (let at = 0; at + 4 <= TOTAL; at += 4096) input.writeUInt32LE(at, at);
      const log = new Log();
      const keep = (_channel: number, chunk: Uint8Array, offset: number) => {
        if (consumer === "at once") return log.append(chunk, offset);
        const copy = Uint8Array.from(chunk);
        return settle().then(() => log.append(copy, offset));
      };
      const deadline = Deadline.after(10_000);
      const first = agent.open();
      let process = first.exec({ argv: ["cat"], env: ENV, stdin: true }, keep, deadline);
      const [object, pid] = [process.object, await process.pid];
      let client: AgentClient = first;
      for (let cut = 0; cut < CUTS; cut++) {
        feed(process, input).catch(() => undefined);
        await Promise.race([reached(log, log.length + Math.random() * ((2 * TOTAL) / CUTS)), process.exited]);
        client.close();
        const { output } = await process.settled();
        expect(output).toBe(log.length);
        client = agent.open();
        process = client.attachProcess({ object, pid, output: log.length, error: 0 }, keep);
      }
      await feed(process, input);
      expect(await process.exited).toMatchObject({ code: 0, outputEnd: TOTAL });
      expect(log.bytes.equals(input)).toBe(true);
      await process.release(deadline);
      client.close();
    }, 15_000);
  }

  test("a command that ends while nobody is connected keeps its output and exit status, until it is released", async () => {
    await using agent = await HostAgent.start();
    const [begin, finish] = [join(agent.directory, "begin"), join(agent.directory, "finish")];
    Bun.spawnSync(["mkfifo", begin, finish]);
    const first = agent.open();
    const script = `exec 3>${finish}; read go <${begin}; echo "$go" done; echo late >&2; exit 9`;
    const started = first.exec({ argv: ["sh", "-c", script], env: ENV }, () => undefined, soon());
    const pid = await started.pid;
    const ended = Bun.file(finish).text();
    first.close();
    expect((await rejection(started.exited)).code).toBe("agent_disconnected");
    await appendFile(begin, "now\n");
    await soon().race(ended, "the command's end");
    const attach = (output: number, error: number) => {
      const client = agent.open();
      const got = collector();
      const process = client.attachProcess({ object: started.object, pid, output, error }, got.consumer);
      return { client, process, got };
    };
    const again = attach(0, 0);
    expect(await again.process.exited).toMatchObject({ code: 9, outputEnd: 9, errorEnd: 5 });
    expect([again.got.output(), again.got.error()]).toEqual(["now done\n", "late\n"]);
    again.client.close();
    const kept = attach(9, 5);
    expect(await kept.process.exited).toMatchObject({ code: 9, outputEnd: 9, errorEnd: 5 });
    expect([kept.got.output(), kept.got.error()]).toEqual(["", ""]);
    await kept.process.release(soon());
    kept.client.close();
    const gone = attach(9, 5);
    expect((await rejection(gone.process.exited)).message).toContain("it does not know it (any more)");
    expect(gone.client.hello?.objects).toEqual([]);
  });

  test("hosts that come and go in the middle of everything leave the agent in order", async () => {
    await using agent = await HostAgent.start();
    for (let i = 0; i < 30; i++) {
      const client = agent.open();
      for (let j = 0; j < 5; j++) {
        const process = client.exec({ argv: ["seq", "20000"], env: ENV, stdin: true }, () => undefined, soon());
        process.stdin.write(new Uint8Array(70_000)).catch(() => undefined);
      }
      const length = Math.floor(Math.random() * 4);
      if (length > 0) await client.ready;
      for (let turn = 1; turn < length; turn++) await settle();
      client.close();
    }
    const client = agent.open();
    const { objects } = await client.ready;
    await Promise.all(objects.map(({ object }) => client.releaseObject(object, soon())));
    const { consumer, output } = collector();
    const process = client.exec({ argv: ["echo", "in order"], env: ENV }, consumer, soon());
    expect((await process.exited).code).toBe(0);
    expect(output()).toBe("in order\n");
  });
});
