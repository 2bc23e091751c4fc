/** Memory of a QEMU that goes back to the host: pages of a private mapping that equal the file that they were copied from. */
import { MayflyError } from "../contract/errors.ts";
import { LineProgram } from "./line-program.ts";
import type { ProcessIdentity } from "./process.ts";
import type { GuestMapping } from "./process-memory.ts";

/** The launcher's program for it, which runs beside one process. */
export class MemoryReturn implements Disposable {
  readonly #program: LineProgram;
  readonly #pid: number;

  /**
   * @param launcher path of the launcher.
   * @param mapping where the process has mapped `memoryPath`, privately and whole.
   */
  constructor(launcher: string, process: ProcessIdentity, mapping: GuestMapping, memoryPath: string) {
    const place = [process.pid, process.startTicks, mapping.start, mapping.lengthBytes].map(String);
    this.#pid = process.pid;
    this.#program = new LineProgram([launcher, "--discard", ...place, memoryPath]);
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
    const answer = await this.#program.ask(word);
    if (answer === undefined) {
      const why = await this.#program.lastWords();
      throw new MayflyError("not_capturable", `Cannot give memory of process ${this.#pid} back: ${why}`);
    }
    if (/^\d+$/.test(answer)) return Number(answer);
    throw new MayflyError("internal", `The program that gives memory back answered ${JSON.stringify(answer)}`);
  }

  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
  }
}
