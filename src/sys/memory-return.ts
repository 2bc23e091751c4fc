/** Memory of a QEMU that goes back to the host: pages of a private mapping that equal the file that they were copied from. */
import { MayflyError } from "../contract/errors.ts";
import type { ProcessIdentity } from "./process.ts";
import type { GuestMapping } from "./process-memory.ts";

/** Longest line that the program answers. */
const MAX_ANSWER_CHARS = 64;
const TAIL_CHARS = 500;

/**
 * The launcher's program for it, which runs beside one process. It is never killed: who ends while it has the process stopped would take that with it.
 * It ends by itself when its input does, as when the daemon ends.
 */
export class MemoryReturn implements Disposable {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #answers: AsyncIterator<Uint8Array>;
  readonly #pid: number;
  #text = "";

  /**
   * @param launcher path of the launcher.
   * @param mapping where the process has mapped `memoryPath`, privately and whole.
   */
  constructor(launcher: string, process: ProcessIdentity, mapping: GuestMapping, memoryPath: string) {
    const place = [process.pid, process.startTicks, mapping.start, mapping.lengthBytes].map(String);
    this.#pid = process.pid;
    this.#child = Bun.spawn([launcher, "--discard", ...place, memoryPath], {
      ...{ stdin: "pipe", stdout: "pipe", stderr: "pipe" },
      env: { LC_ALL: "C" },
      detached: true,
    });
    this.#answers = this.#child.stdout[Symbol.asyncIterator]();
  }

  /**
   * Looks for pages that could go, while the process runs.
   * @returns their bytes, at most 32 MiB at a time.
   * @throws `not_capturable` if the process may not be looked at or is gone.
   */
  look(): Promise<number> {
    return this.#ask("look");
  }

  /**
   * Gives back what the last look has found and what still equals the file. Nothing may write to that memory meanwhile: neither the guest nor a device.
   * @returns its bytes.
   * @throws `not_capturable`.
   */
  discard(): Promise<number> {
    return this.#ask("discard");
  }

  async #ask(word: string): Promise<number> {
    try {
      this.#child.stdin.write(`${word}\n`);
      await this.#child.stdin.flush();
    } catch {
      // It has ended, and says why below.
    }
    while (!this.#text.includes("\n") && this.#text.length < MAX_ANSWER_CHARS) {
      const { value, done } = await this.#answers.next();
      if (done) throw await this.#ended();
      this.#text += Buffer.from(value).toString("latin1");
    }
    const end = this.#text.indexOf("\n");
    const answer = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 1);
    if (/^\d+$/.test(answer)) return Number(answer);
    throw new MayflyError("internal", `The program that gives memory back answered ${JSON.stringify(answer)}`);
  }

  async #ended(): Promise<MayflyError> {
    const said = (await new Response(this.#child.stderr).text()).trim().slice(-TAIL_CHARS);
    const why = said.replace(/^mayfly-launcher: /, "") || "its program has ended";
    return new MayflyError("not_capturable", `Cannot give memory of process ${this.#pid} back: ${why}`);
  }

  [Symbol.dispose](): void {
    // It may have ended already.
    Promise.resolve(this.#child.stdin.end()).catch(() => undefined);
    this.#answers.return?.().catch(() => undefined);
    this.#child.unref();
  }
}
