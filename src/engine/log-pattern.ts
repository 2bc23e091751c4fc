/**
 * Regular expressions over output of a guest. What a guest prints may be made to keep a backtracking matcher busy for ever, so
 * it does not run in this process: `grep -P` does it, whose library bounds the backtracking, and which is killed when it takes too long.
 */
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { runTool } from "../sys/tool.ts";

/** Longest that one look at a piece of output may take. */
const LOOK_MS = 5_000;
/** grep's exit codes: nothing matches, and it could not look. */
const NO_MATCH = 1;

/** @throws `invalid_argument` for what is no regular expression (PCRE), with grep's word for why. */
export async function checkPattern(pattern: string, deadline: Deadline): Promise<void> {
  await matchesLine(pattern, new Uint8Array(0), deadline);
}

/**
 * Whether a line of `bytes` matches.
 * @throws `invalid_argument` for a bad pattern, and for one that tries too much on these bytes.
 */
export async function matchesLine(pattern: string, bytes: Uint8Array, deadline: Deadline): Promise<boolean> {
  const { signal } = deadline;
  const within = Math.max(1, Math.min(LOOK_MS, deadline.remainingMs));
  try {
    // A pattern on a line of its own would be two for grep.
    if (pattern.includes("\n")) throw unusable(pattern, "it has more than one line");
    await runTool(["grep", "--quiet", "--text", "--perl-regexp", "--regexp", pattern], {
      input: bytes,
      deadlineMs: within,
      endsWithUs: true,
      ...(signal === undefined ? {} : { signal }),
    });
    return true;
  } catch (error) {
    if (!(error instanceof MayflyError)) throw error;
    if (error.code === "tool_failed" && error.details.exitCode === NO_MATCH) return false;
    if (error.code === "tool_failed") throw unusable(pattern, error.details.stderrTail ?? error.message);
    if (error.code === "deadline_exceeded" && within === LOOK_MS) {
      throw unusable(pattern, `it is still being compared with the output after ${LOOK_MS} ms`);
    }
    throw error;
  }
}

function unusable(pattern: string, why: string): MayflyError {
  return new MayflyError("invalid_argument", `Cannot look for the pattern ${JSON.stringify(pattern)}: ${why}`);
}
