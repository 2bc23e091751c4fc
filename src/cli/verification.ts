/** Commands that check what is stored against its manifests. */
import type { VerifyResult } from "../contract/api.ts";
import { print } from "../sys/standard-io.ts";
import { oneLine, printJson } from "./output.ts";

/** Checks each, one after the other, and prints what was found. @returns 0, or 1 if any is damaged. */
export async function verifyEach(
  refs: readonly string[],
  json: boolean,
  verify: (ref: string) => Promise<VerifyResult>,
): Promise<number> {
  const results: VerifyResult[] = [];
  for (const ref of refs) {
    const result = await verify(ref);
    results.push(result);
    if (json) continue;
    await print(`${result.id}: ${result.ok ? "ok" : "DAMAGED"}\n`);
    for (const problem of result.problems) await print(`  - ${oneLine(problem)}\n`);
  }
  if (json) await printJson(results);
  return results.every(({ ok }) => ok) ? 0 : 1;
}
