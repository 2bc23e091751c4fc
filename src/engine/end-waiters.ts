/** Those who wait for the end of a VM. */
import type { Vm } from "../contract/api.ts";
import { Deadline } from "../sys/deadline.ts";

/** By VM. */
export class EndWaiters {
  readonly #waiters = new Map<string, Set<(vm: Vm) => void>>();

  /** Resolves when a VM that goes on has ended. */
  wait({ id, name }: Vm, signal: AbortSignal | undefined): Promise<Vm> {
    const { promise, resolve } = Promise.withResolvers<Vm>();
    const waiters = this.#waiters.get(id) ?? new Set();
    this.#waiters.set(id, waiters.add(resolve));
    const ended = Deadline.after(Number.POSITIVE_INFINITY, signal).race(promise, `the end of VM ${name}`);
    return ended.finally(() => waiters.delete(resolve));
  }

  /** Tells who waits for a VM how it ended. */
  wake(vm: Vm): void {
    for (const waiter of this.#waiters.get(vm.id) ?? []) waiter(vm);
    this.#waiters.delete(vm.id);
  }
}
