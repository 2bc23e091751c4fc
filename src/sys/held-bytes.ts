/** Bytes that wait in one growing buffer: many small pieces cost no more than their bytes. */
const FIRST_BYTES = 4096;

/** A queue of bytes. Memory is given back when it is empty. */
export class HeldBytes {
  #bytes: Buffer | undefined;
  #from = 0;
  #to = 0;

  get length(): number {
    return this.#to - this.#from;
  }

  /** Adds a copy. */
  add(bytes: Uint8Array): void {
    const length = this.length + bytes.length;
    if (this.#bytes === undefined || this.#to + bytes.length > this.#bytes.length) {
      const held = this.peek();
      // In place while half of the buffer has been taken already: each byte is moved once at most.
      const room = this.#bytes !== undefined && length <= this.#bytes.length / 2;
      const into = room ? this.#bytes : Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, 2 * length));
      into?.set(held);
      this.#bytes = into;
      this.#from = 0;
      this.#to = held.length;
    }
    this.#bytes?.set(bytes, this.#to);
    this.#to += bytes.length;
  }

  /** All bytes, valid until the next call. */
  peek(): Uint8Array {
    return this.#bytes?.subarray(this.#from, this.#to) ?? new Uint8Array(0);
  }

  /** Takes bytes off the front. */
  take(byteCount: number): void {
    this.#from += byteCount;
    if (this.#from >= this.#to) this.clear();
  }

  clear(): void {
    this.#bytes = undefined;
    this.#from = 0;
    this.#to = 0;
  }
}
