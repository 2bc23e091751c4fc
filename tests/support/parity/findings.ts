/** For tests: what the probe printed, what differs between two of them, and which differences are meant. */
import type { Ran } from "./runners.ts";

/** Value by `SECTION NAME`. */
export type Findings = ReadonlyMap<string, string>;

/** A difference that is meant, and why. */
export interface Meant {
  /** `SECTION NAME` of what it is about. */
  what: string | RegExp;
  /** Matches options without which the difference is not meant. */
  given?: RegExp;
  /** Hosts and versions of podman differ in it, so that it need not be met. */
  varies?: true;
  why: string;
}

/** One thing that was not found alike. */
export interface Difference {
  what: string;
  podman: string | undefined;
  mayfly: string | undefined;
}

/** Reads the probe's lines, a terminal's too. @throws when it did not end well. */
export function findingsOf({ exitCode, stdout, stderr }: Ran): Findings {
  const lines = stdout.split(/\r?\n/).filter((line) => line.includes("\t"));
  if (exitCode !== 0 || lines.length === 0) throw new Error(`the probe ended with ${exitCode}: ${stdout}${stderr}`);
  return new Map(
    lines.map((line): [string, string] => {
      const [section, name, ...value] = line.split("\t");
      return [`${section} ${name}`, value.join(" ").trim()];
    }),
  );
}

/** Everything that was found differently, in the order of names. */
export function differencesOf(podman: Findings, mayfly: Findings): Difference[] {
  const names = [...new Set([...podman.keys(), ...mayfly.keys()])].sort();
  return names.flatMap((what) => {
    const [one, other] = [podman.get(what), mayfly.get(what)];
    return one === other ? [] : [{ what, podman: one, mayfly: other }];
  });
}

/** A table of meant differences that knows which of its entries have been of use. */
export class MeantDifferences {
  readonly #unused: Set<Meant>;

  constructor(private readonly table: readonly Meant[]) {
    this.#unused = new Set(table);
  }

  /** Those that nobody meant. @param options what both were run with. */
  others(differences: readonly Difference[], options: readonly string[]): Difference[] {
    return differences.filter(({ what }) => {
      const isAbout = (meant: Meant) => (typeof meant.what === "string" ? meant.what === what : meant.what.test(what));
      const isGiven = ({ given }: Meant) => given === undefined || given.test(options.join(" "));
      const entry = this.table.find((meant) => isAbout(meant) && isGiven(meant));
      if (entry !== undefined) this.#unused.delete(entry);
      return entry === undefined;
    });
  }

  /** Entries that have not been met. */
  get unused(): Meant[] {
    return [...this.#unused].filter(({ varies }) => varies !== true);
  }
}
