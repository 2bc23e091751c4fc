/** A number of equal things done a few at a time. */

/**
 * Does all of them, at most `width` at once, in order.
 * @throws what the first one that failed throws, once those begun with it have ended; no further one is begun then.
 */
export async function several<T>(items: Iterable<T>, width: number, action: (item: T) => Promise<void>): Promise<void> {
  const failures: unknown[] = [];
  const left = items[Symbol.iterator]();
  const worker = async () => {
    while (failures.length === 0) {
      const { done, value } = left.next();
      if (done === true) return;
      await action(value).catch((error: unknown) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  if (failures.length > 0) throw failures[0];
}
