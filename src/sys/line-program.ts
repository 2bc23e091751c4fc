/** A program of the launcher's that runs beside one process: lines are asked on its standard input, and answered on its output, in order. */

/** Longest line that it answers. */
const MAX_ANSWER_CHARS = 64;
const TAIL_CHARS = 500;

/**
 * It is never killed: who ends while it has the process stopped would take that with it. It ends by itself when its input does, as when the
 * daemon ends.
 */
export class LineProgram implements Disposable {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #answers: AsyncIterator<Uint8Array>;
  #text = "";
  #said: Promise<string> | undefined;
  /** Answers come in the order of what was asked. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(command: readonly string[]) {
    this.#child = Bun.spawn([...command], {
      ...{ stdin: "pipe", stdout: "pipe", stderr: "pipe" },
      env: { LC_ALL: "C" },
      detached: true,
    });
    this.#answers = this.#child.stdout[Symbol.asyncIterator]();
  }

  /** Resolves with its exit code when it has ended. */
  get exited(): Promise<number> {
    return this.#child.exited;
  }

  /** Asks a line. @returns the answer; undefined: it has ended. */
  ask(line: string): Promise<string | undefined> {
    // In one turn: answers belong to lines by their order.
    try {
      this.#child.stdin.write(`${line}\n`);
      Promise.resolve(this.#child.stdin.flush()).catch(() => undefined);
    } catch {
      // It has ended, and says why.
    }
    return this.next();
  }

  /** Its next line, that nobody has to ask for. @returns undefined: it has ended. */
  next(): Promise<string | undefined> {
    const answer = this.#last.then(() => this.#read());
    this.#last = answer;
    return answer;
  }

  /** Why it has ended, in its own words. */
  async lastWords(): Promise<string> {
    this.#said ??= new Response(this.#child.stderr).text();
    const said = (await this.#said).trim().slice(-TAIL_CHARS);
    return said.replace(/^mayfly-launcher: /, "") || "its program has ended";
  }

  async #read(): Promise<string | undefined> {
    while (!this.#text.includes("\n") && this.#text.length < MAX_ANSWER_CHARS) {
      const { value, done } = await this.#answers.next();
      if (done) return undefined;
      this.#text += Buffer.from(value).toString("latin1");
    }
    const end = this.#text.indexOf("\n");
    const answer = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 1);
    return answer;
  }

  [Symbol.dispose](): void {
    // It may have ended already.
    Promise.resolve(this.#child.stdin.end()).catch(() => undefined);
    this.#answers.return?.().catch(() => undefined);
    this.#child.unref();
  }
}
