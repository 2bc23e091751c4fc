/** For tests: the real agent, built to run as an ordinary process on a unix socket. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentClient, type AgentClientOptions } from "../../src/agent/client.ts";
import type { OutputConsumer } from "../../src/agent/object.ts";
import type { AgentProcess } from "../../src/agent/process.ts";
import { soon } from "./fake-peer.ts";

const repository = join(import.meta.dir, "../..");
const buildDirectory = join(repository, "build/agent");

/** The agent's program for hosts, built if need be; undefined where there is no compiler for it. */
export const hostAgentProgram: string | undefined = (() => {
  const given = process.env["MAYFLY_AGENT_HOST"];
  if (given !== undefined) return given;
  if (Bun.which("musl-gcc") === null) return undefined;
  const program = join(buildDirectory, "mayfly-agent-host");
  const sources = join(repository, "guest/agent");
  const make = ["make", "-s", "-C", sources, `BUILD=${buildDirectory}`, program];
  // Tests run several at a time: one of them makes it.
  const alone = ["flock", join(sources, "Makefile"), ...make];
  const { exitCode, stderr } = Bun.spawnSync(alone, { stdout: "ignore", stderr: "pipe" });
  if (exitCode !== 0) throw new Error(`make ended with ${exitCode}: ${stderr}`);
  return program;
})();

/** One running agent with a directory of its own as its root for files (commands run on the host). */
export class HostAgent implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), "mayfly-agent-"));
  readonly socketPath = join(this.directory, "socket");
  readonly #process = Bun.spawn([hostAgentProgram ?? "", "--listen", this.socketPath, "--root", this.directory], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  readonly #clients: AgentClient[] = [];

  /** Starts an agent and waits until it takes connections. */
  static async start(): Promise<HostAgent> {
    const agent = new HostAgent();
    const deadline = soon();
    // It does not say when it listens: the first connection is tried until it stands.
    for (;;) {
      const client = agent.open();
      const error = await client.ready.then(
        () => undefined,
        (reason: unknown) => reason,
      );
      client.close();
      if (error === undefined) return agent;
      if (deadline.remainingMs === 0) throw error;
    }
  }

  /** A client that has begun to connect. */
  open(options: Partial<AgentClientOptions> = {}): AgentClient {
    const client = AgentClient.open(this.socketPath, { deadline: soon(), ...options });
    this.#clients.push(client);
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    this.#process.kill("SIGKILL");
    await this.#process.exited;
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** The environment of commands in tests. */
export const ENV = ["PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"];

/** Collects a process' output as text. */
export function collector(): { consumer: OutputConsumer; output: () => string; error: () => string } {
  const parts: [Buffer[], Buffer[]] = [[], []];
  return {
    consumer: (channel, chunk) => void parts[channel === 2 ? 0 : 1].push(Buffer.from(chunk)),
    output: () => Buffer.concat(parts[0]).toString(),
    error: () => Buffer.concat(parts[1]).toString(),
  };
}

/** Runs a shell command to its end and forgets it. */
export async function shell(client: AgentClient, script: string): Promise<{ output: string; code: number | null }> {
  const { consumer, output } = collector();
  const process: AgentProcess = client.exec({ argv: ["sh", "-c", script], env: ENV }, consumer, soon());
  const { code } = await process.exited;
  await process.release(soon());
  return { output: output(), code };
}
