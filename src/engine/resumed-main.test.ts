/** A main process that goes on, with the real agent, run as a process of the host. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { soon } from "../../tests/support/fake-peer.ts";
import { collector, ENV, HostAgent, hostAgentProgram } from "../../tests/support/host-agent.ts";
import { ResumedMain } from "./resumed-main.ts";

const here =
  hostAgentProgram === undefined ? "skipped: there is no musl-gcc to build the agent with" : "with the real agent";

describe.skipIf(hostAgentProgram === undefined)(here, () => {
  let agent: HostAgent;
  beforeAll(async () => {
    agent = await HostAgent.start();
  });
  afterAll(() => agent[Symbol.asyncDispose]());

  /** A process that answers each line that it is given, and whose connection is gone. */
  async function started(): Promise<{ object: number; pid: number; output: number; error: number }> {
    const client = agent.open();
    const { consumer, output } = collector();
    const spec = { argv: ["sh", "-c", "echo before; while read x; do echo $x; done; exit 5"], env: ENV, stdin: true };
    const process = client.exec(spec, consumer, soon());
    const pid = await process.pid;
    while (output() !== "before\n") await client.ping(soon());
    const offsets = await process.settled();
    client.close();
    return { object: process.object, pid, ...offsets };
  }

  test("what it prints waits for whoever takes it; what was printed before it was saved does not come again", async () => {
    const main = await started();
    const client = agent.open();
    const resumed = new ResumedMain(client, main);
    expect(await resumed.process.pid).toBe(main.pid);
    await resumed.process.stdin.write(Buffer.from("one\ntwo\n"));
    await client.ping(soon());
    const { consumer, output } = collector();
    const process = resumed.handTo(consumer);
    await process.stdin.write(Buffer.from("three\n"));
    process.stdin.end();
    expect((await process.exited).code).toBe(5);
    expect(output()).toBe("one\ntwo\nthree\n");
    await process.release(soon());
    client.close();
  });

  test("while it is being warmed its output is dropped", async () => {
    const main = await started();
    const client = agent.open();
    const resumed = new ResumedMain(client, main);
    resumed.drop();
    await resumed.process.stdin.write(Buffer.from("warming\n"));
    // It has printed that once so much has been taken.
    while ((await resumed.process.settled()).output < main.output + 8) await client.ping(soon());
    resumed.hold();
    await resumed.process.stdin.write(Buffer.from("handed out\n"));
    const { consumer, output } = collector();
    const process = resumed.handTo(consumer);
    process.stdin.end();
    await process.exited;
    expect(output()).toBe("handed out\n");
    await process.release(soon());
    client.close();
  });
});
