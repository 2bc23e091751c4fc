/** What the services answer, and whether each VM has answered for itself: its own name, numbers that no other has given. */
import { MayflyError } from "../../src/contract/errors.ts";

/** Pages that were seen. */
export class Pages {
  readonly #seen = new Set<string>();

  /**
   * Checks one page.
   * @throws MayflyError `internal` when it names another host, or has a number of the kernel's generator that was seen before.
   */
  check(page: string, hostname: string): void {
    const host = field(page, "host");
    const kernel = field(page, "kernel");
    if (host !== hostname) throw wrong(`names the host ${host} instead of ${hostname}`);
    if (this.#seen.has(kernel)) throw wrong(`has the random number ${kernel}, which another VM has given before`);
    this.#seen.add(kernel);
  }
}

function field(page: string, id: string): string {
  const value = new RegExp(`<dd id=${id}>([^<\n]+)`).exec(page)?.[1];
  if (value === undefined) throw wrong(`has no field ${id}`);
  return value;
}

function wrong(what: string): MayflyError {
  return new MayflyError("internal", `The service's page ${what}`);
}
