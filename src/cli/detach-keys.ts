/** The keys that leave a process without ending it, found in what is typed. */
import { MayflyError } from "../contract/errors.ts";

/** Docker's default. */
export const DETACH_KEYS = "ctrl-p,ctrl-q";

/** Bytes of a key sequence such as `ctrl-p,ctrl-q` or `a,ctrl-[`. @throws MayflyError `invalid_argument`. */
export function parseDetachKeys(text: string): number[] {
  return text.split(",").map((key) => {
    const control = /^ctrl-([a-z@[\\\]^_])$/i.exec(key)?.[1];
    if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 31;
    if (key.length === 1 && key.charCodeAt(0) < 128) return key.charCodeAt(0);
    throw new MayflyError(
      "invalid_argument",
      `--detach-keys has ${JSON.stringify(key)}, which is neither a character nor ctrl- and one`,
    );
  });
}

/** What may go on to the process, and whether the keys were all pressed. */
export interface Filtered {
  bytes: Uint8Array;
  detach: boolean;
}

/** A filter for typed bytes: a begun sequence is held back, and passed on when it goes on differently. */
export function detachFilter(keys: readonly number[]): (chunk: Uint8Array) => Filtered {
  let matched = 0;
  return (chunk) => {
    const passed: number[] = [];
    for (const byte of chunk) {
      if (byte === keys[matched]) {
        matched += 1;
        if (matched === keys.length) return { bytes: Uint8Array.from(passed), detach: true };
        continue;
      }
      passed.push(...keys.slice(0, matched));
      matched = byte === keys[0] ? 1 : 0;
      if (matched === 0) passed.push(byte);
      else if (keys.length === 1) return { bytes: Uint8Array.from(passed), detach: true };
    }
    return { bytes: Uint8Array.from(passed), detach: false };
  };
}
