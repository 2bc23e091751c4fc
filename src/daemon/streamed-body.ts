/** Answers whose length nobody knows beforehand. */
import { log } from "./log.ts";
import { problemOf } from "./problem.ts";

/**
 * An answer that is sent as its chunks come, no faster than the client reads. When they fail half-way the connection is cut, so that
 * no client takes the part for the whole, and the failure is logged.
 * @param what names the body in the log.
 */
export function streamed(chunks: AsyncIterable<Uint8Array>, what: string, headers: Record<string, string>): Response {
  return new Response(cutOnFailure(chunks, what), { headers });
}

async function* cutOnFailure(chunks: AsyncIterable<Uint8Array>, what: string): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch (error) {
    const { code, detail } = problemOf(error);
    if (code !== "cancelled") log("warn", "answer broken off", { what, code, error: detail });
    // Bun cuts the connection for any thrown value, and prints all but this one to standard error.
    throw undefined;
  }
}
