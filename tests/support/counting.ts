/** For tests: a guest process that counts on its standard output, and what of that has been logged. */
import type { TestEngine } from "./engine.ts";

/** Prints 1, 2, 3 ... */
export const COUNTER = ["/bin/sh", "-c", "n=0; while :; do n=$((n + 1)); echo $n; usleep 20000; done"];

/** The first numbers in a VM's log, once there are so many. */
export async function numbersOf(vms: TestEngine, ref: string, count: number): Promise<number[]> {
  let text = "";
  const chunks = vms.engine.logs(ref, { follow: true, signal: AbortSignal.timeout(20_000) });
  for await (const { chunk } of chunks) {
    text += Buffer.from(chunk).toString();
    const lines = text.split("\n").slice(0, -1);
    if (lines.length >= count) return lines.slice(0, count).map(Number);
  }
  throw new Error(`VM ${ref} has printed ${JSON.stringify(text)}, not ${count} lines`);
}

/** Whether numbers go on one by one, without a gap or a repetition. */
export function goOnOneByOne(numbers: readonly number[]): boolean {
  return numbers.every((number, index) => index === 0 || number === (numbers[index - 1] ?? 0) + 1);
}
