/** Which image the warm members of a pool are for: half of them for the one that was asked for last, as long as somebody asks. */
import { nowMs } from "../sys/deadline.ts";
import type { WarmRoot } from "./rehearsal.ts";

/** An image that nobody has asked for in this time has no share any more, in milliseconds. */
const SHARE_MS = 600_000;

/** The shares of one pool. Members are told by the path of their root; undefined is a member for anything. */
export class PoolShares {
  #last: { root: WarmRoot; atMs: number } | undefined;

  constructor(private readonly now: () => number = nowMs) {}

  /** Notes what a request asks for. */
  asked(root: WarmRoot | undefined): void {
    if (root !== undefined) this.#last = { root, atMs: this.now() };
  }

  /** Notes that no member could be made for an image: its share is everybody's until it is asked for again. */
  refused(): void {
    this.#last = undefined;
  }

  /** What the next member is to be for; undefined: for anything. */
  next(members: readonly (string | undefined)[], target: number): WarmRoot | undefined {
    const image = this.#image();
    if (image === undefined) return undefined;
    const share = Math.floor(target / 2);
    const general = members.filter((member) => member === undefined).length;
    const own = members.filter((member) => member === image.path).length;
    // Whichever is further from its share; an image first, since it was asked for just now.
    return own < share && (own <= general || general >= target - share) ? image : undefined;
  }

  /** Indices of members that nobody asks for, or that take the place of others. */
  excess(members: readonly (string | undefined)[], target: number): number[] {
    const image = this.#image();
    const share = image === undefined ? 0 : Math.floor(target / 2);
    const kept = { general: 0, own: 0 };
    return members.flatMap((member, index) => {
      if (member === undefined) return ++kept.general > target - share && members.length >= target ? [index] : [];
      if (member !== image?.path) return [index];
      return ++kept.own > share ? [index] : [];
    });
  }

  #image(): WarmRoot | undefined {
    return this.#last !== undefined && this.now() - this.#last.atMs < SHARE_MS ? this.#last.root : undefined;
  }
}
