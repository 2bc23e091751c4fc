/** Idempotency keys: a creation that is asked for twice with one key happens once. */
import { createHash } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { nowMs } from "../sys/deadline.ts";

/** How long an answer is remembered, in milliseconds; at most as long as the daemon lives. */
const REMEMBERED_MS = 24 * 3_600_000;
/** Keys remembered; the oldest go first. */
const KEY_LIMIT = 10_000;
/** Longest key, in characters. */
const KEY_LENGTH_LIMIT = 255;

interface Entry<T> {
  /** Digest of the request. */
  readonly request: string;
  readonly answer: Promise<T>;
  readonly atMs: number;
}

/** The keys of one route, whose answers are of type T. */
export class IdempotencyKeys<T> {
  readonly #entries = new Map<string, Entry<T>>();

  /**
   * Does `work`, or gives the answer (also one still being worked on) of an earlier call with the same key. Failures are not
   * remembered: they have left nothing behind, and a repeated request tries again.
   * @param key as the client sent it, null without one.
   * @param request the validated request, to tell whether it is the same.
   * @throws `idempotency_conflict` when the key came with another request, `invalid_argument` when it is too long.
   */
  async once(key: string | null, request: unknown, work: () => Promise<T>): Promise<T> {
    if (key === null) return work();
    if (key === "" || key.length > KEY_LENGTH_LIMIT) {
      throw new MayflyError(
        "invalid_argument",
        `An Idempotency-Key has 1 to ${KEY_LENGTH_LIMIT} characters, this one ${key.length}`,
      );
    }
    const digest = createHash("sha256").update(canonical(request)).digest("base64");
    const known = this.#entries.get(key);
    if (known !== undefined && nowMs() - known.atMs < REMEMBERED_MS) {
      if (known.request === digest) return known.answer;
      throw new MayflyError(
        "idempotency_conflict",
        `The Idempotency-Key ${JSON.stringify(key)} was used with another request`,
      );
    }
    return this.#remember(key, digest, work());
  }

  #remember(key: string, request: string, answer: Promise<T>): Promise<T> {
    const entry: Entry<T> = { request, answer, atMs: nowMs() };
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    answer.catch(() => {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
    });
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= KEY_LIMIT) break;
      this.#entries.delete(oldest);
    }
    return answer;
  }
}

/** JSON with the keys of objects sorted, so that their order does not matter. */
function canonical(document: unknown): string {
  return JSON.stringify(document, (_key, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}
