/** Who has what: things by key, each with the VMs that have it. In memory: the records of VMs say it again when a daemon starts. */

/** A VM as a holder. */
export interface Holder {
  id: string;
  name: string;
}

/** Things that VMs hold. */
export class Holds {
  readonly #holders = new Map<string, Map<string, Holder>>();

  /** The VMs that have a thing. */
  of(key: string): Holder[] {
    return [...(this.#holders.get(key)?.values() ?? [])];
  }

  isHeld(key: string): boolean {
    return this.#holders.has(key);
  }

  /** Whether another VM has a thing. */
  otherThan(key: string, vmId: string): Holder | undefined {
    return this.of(key).find((holder) => holder.id !== vmId);
  }

  add(key: string, holder: Holder): void {
    const holders = this.#holders.get(key) ?? new Map<string, Holder>();
    holders.set(holder.id, holder);
    this.#holders.set(key, holders);
  }

  /** @returns whether nobody has it now. One that was not held is no error. */
  remove(key: string, vmId: string): boolean {
    const holders = this.#holders.get(key);
    holders?.delete(vmId);
    if (holders?.size === 0) this.#holders.delete(key);
    return !this.#holders.has(key);
  }
}
