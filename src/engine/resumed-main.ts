/** The main process of an application's template in a clone: it was started when the template was built, and goes on. */
import type { AgentClient } from "../agent/client.ts";
import type { OutputConsumer } from "../agent/object.ts";
import type { AgentProcess } from "../agent/process.ts";
import type { ApplicationPart } from "../template/application.ts";

/** A main process that nobody has started in this clone. What it prints waits in the guest until {@link ResumedMain.handTo}. */
export class ResumedMain {
  readonly process: AgentProcess;
  /** Its id in the guest. */
  readonly pid: number;
  #consumer: OutputConsumer | undefined;
  #held: PromiseWithResolvers<OutputConsumer> | undefined = Promise.withResolvers();

  /** Goes on with the process. Call it in the turn in which the agent's channel was opened, before it stands. */
  constructor(agent: AgentClient, { pid, ...main }: ApplicationPart["main"]) {
    this.pid = pid;
    this.process = agent.attachProcess({ ...main, pid, skipGone: true }, (channel, chunk, offset) =>
      this.#take(channel, chunk, offset),
    );
  }

  /** From now on output waits in the guest until somebody takes it. */
  hold(): void {
    this.#held = Promise.withResolvers<OutputConsumer>();
  }

  /** From now on output is dropped: the clone is being warmed. */
  drop(): void {
    this.#held = undefined;
  }

  /** Gives its output from now on, and what is held, to a consumer. */
  handTo(consumer: OutputConsumer): AgentProcess {
    this.#consumer = consumer;
    this.#held?.resolve(consumer);
    return this.process;
  }

  #take(...[channel, chunk, offset]: Parameters<OutputConsumer>): void | Promise<void> {
    if (this.#consumer !== undefined) return this.#consumer(channel, chunk, offset);
    if (this.#held === undefined) return;
    const copy = chunk.slice();
    return this.#held.promise.then((consumer) => consumer(channel, copy, offset));
  }
}
