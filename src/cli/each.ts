/** Commands that do one thing to each of their operands. */
import { print } from "../sys/standard-io.ts";
import { printJson } from "./output.ts";
import { report } from "./report.ts";

/** What became of an operand. */
type Outcome<T> = PromiseSettledResult<T> & { operand: string };

/**
 * Does something for each operand, printing the operand (as docker does) or the result as JSON. A failure is said and the rest is still done.
 * @param atOnce how many are under way at the same time; what is printed keeps the order of the operands.
 * @returns 0, or the exit code of the first failure.
 */
export async function forEach(
  operands: readonly string[],
  json: boolean,
  act: (operand: string) => Promise<unknown>,
  atOnce = 1,
): Promise<number> {
  let exitCode = 0;
  const results: unknown[] = [];
  for await (const outcome of outcomes(operands, act, atOnce)) {
    if (outcome.status === "rejected") {
      const code = await report(outcome.reason, json);
      if (exitCode === 0) exitCode = code;
    } else if (json) results.push(outcome.value ?? { id: outcome.operand });
    else await print(`${outcome.operand}\n`);
  }
  if (json) await printJson(results);
  return exitCode;
}

/** What becomes of each operand, in their order, while up to `atOnce` from the next one on are under way. */
export async function* outcomes<T>(
  operands: readonly string[],
  act: (operand: string) => Promise<T>,
  atOnce: number,
): AsyncGenerator<Outcome<T>> {
  const begun: Promise<Outcome<T>>[] = [];
  for (const [index, operand] of operands.entries()) {
    while (begun.length < Math.min(operands.length, index + atOnce))
      begun.push(outcomeOf(operands[begun.length] ?? "", act));
    yield await (begun[index] ?? outcomeOf(operand, act));
  }
}

async function outcomeOf<T>(operand: string, act: (operand: string) => Promise<T>): Promise<Outcome<T>> {
  const [outcome] = await Promise.allSettled([act(operand)]);
  return { ...outcome, operand };
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
