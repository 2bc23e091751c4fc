/** Ids as people see them. */

/** Characters of a short id: a UUIDv7 begins with its time, so that fewer would not tell apart what was made at once. */
const SHORT_LENGTH = 16;

/** The random part of an id, shortened; it names the same thing wherever an id does. */
export function shortId(id: string): string {
  return id.slice(id.indexOf("_") + 1).slice(0, SHORT_LENGTH);
}
