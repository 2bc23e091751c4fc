/** The benchmark's own pauses: they space samples out, nothing is waited for by them. */
import { MayflyError } from "../src/contract/errors.ts";

/** Resolves after some milliseconds. @throws `cancelled` when the signal fires first. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = () => {
      clearTimeout(timer);
      reject(new MayflyError("cancelled", "The benchmark was interrupted"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", cancel);
      resolve();
    }, ms);
    if (signal.aborted) cancel();
    else signal.addEventListener("abort", cancel, { once: true });
  });
}

/**
 * Starts `count` things at fixed points of time, whether or not those before have ended, and waits for all.
 * @throws what the first one that failed throws, after all have ended.
 */
export async function atFixedRate(
  count: number,
  perSecond: number,
  start: () => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const beginMs = performance.now();
  const started: Promise<void>[] = [];
  try {
    for (let index = 0; index < count; index += 1) {
      await pause(Math.max(0, beginMs + (index * 1000) / perSecond - performance.now()), signal);
      const one = start();
      one.catch(() => undefined);
      started.push(one);
    }
  } finally {
    await Promise.allSettled(started);
  }
  await Promise.all(started);
}
