/** Commands that do one thing to each of their operands. */
import { print } from "../sys/standard-io.ts";
import { printJson } from "./output.ts";
import { report } from "./report.ts";

/**
 * Does something for each operand, one after the other, printing the operand (as docker does) or the result as JSON. A failure is
 * said and the rest is still done.
 * @returns 0, or the exit code of the first failure.
 */
export async function forEach(
  operands: readonly string[],
  json: boolean,
  act: (operand: string) => Promise<unknown>,
): Promise<number> {
  let exitCode = 0;
  const results: unknown[] = [];
  for (const operand of operands) {
    try {
      const result = await act(operand);
      if (json) results.push(result ?? { id: operand });
      else await print(`${operand}\n`);
    } catch (error) {
      const code = await report(error, json);
      if (exitCode === 0) exitCode = code;
    }
  }
  if (json) await printJson(results);
  return exitCode;
}

/** Gets a document for each operand and prints them all as one JSON array. @returns as {@link forEach}. */
export async function inspectEach(
  operands: readonly string[],
  json: boolean,
  get: (operand: string) => Promise<unknown>,
): Promise<number> {
  let exitCode = 0;
  const documents: unknown[] = [];
  for (const operand of operands) {
    try {
      documents.push(await get(operand));
    } catch (error) {
      const code = await report(error, json);
      if (exitCode === 0) exitCode = code;
    }
  }
  await printJson(documents);
  return exitCode;
}
