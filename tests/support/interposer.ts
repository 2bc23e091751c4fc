/** For tests: a man in the middle of a unix socket, who can cut, stall and forge what passes. */
import { renameSync, rmSync } from "node:fs";
import type { Socket } from "bun";

interface Pair {
  ours: Socket<undefined>;
  theirs: Socket<undefined> | undefined;
  /** Bytes from our side that came before the other side was there. */
  early: Buffer[];
}

/** Takes the place of a listening socket's path; connections that are made from now on pass through here. */
export class Interposer implements Disposable {
  readonly #realPath: string;
  readonly #server: { stop(force?: boolean): void };
  readonly #pairs = new Set<Pair>();
  #stalled = false;
  /** Called with what the host sends, before it is passed on. */
  onHost: (bytes: Buffer) => void = () => undefined;
  /** Called with what the guest sends; what it returns is passed on. */
  onGuest: (bytes: Buffer) => Uint8Array = (bytes) => bytes;

  constructor(readonly path: string) {
    this.#realPath = `${path}.real`;
    renameSync(path, this.#realPath);
    this.#server = Bun.listen<undefined>({
      unix: path,
      socket: {
        binaryType: "buffer",
        open: (socket) => void this.#accept(socket),
        data: (socket, bytes) => this.#fromHost(socket, Buffer.from(bytes)),
        close: (socket) => this.#find(socket)?.theirs?.terminate(),
      },
    });
  }

  /** How many connections have been made through it. */
  connections = 0;

  async #accept(ours: Socket<undefined>): Promise<void> {
    this.connections += 1;
    const pair: Pair = { ours, theirs: undefined, early: [] };
    this.#pairs.add(pair);
    const socket = {
      binaryType: "buffer" as const,
      data: (_socket: Socket<undefined>, bytes: Uint8Array) => {
        if (!this.#stalled) ours.write(this.onGuest(Buffer.from(bytes)));
      },
      close: () => ours.terminate(),
    };
    pair.theirs = await Bun.connect<undefined>({ unix: this.#realPath, socket, data: undefined });
    for (const bytes of pair.early.splice(0)) pair.theirs.write(bytes);
  }

  #find(ours: Socket<undefined>): Pair | undefined {
    return [...this.#pairs].find((pair) => pair.ours === ours);
  }

  #fromHost(ours: Socket<undefined>, bytes: Buffer): void {
    const pair = this.#find(ours);
    this.onHost(bytes);
    if (pair === undefined || this.#stalled) return;
    if (pair.theirs === undefined) pair.early.push(bytes);
    else pair.theirs.write(bytes);
  }

  /** Sends bytes to the host as if they came from the guest. */
  forge(bytes: Uint8Array): void {
    for (const { ours } of this.#pairs) ours.write(bytes);
  }

  /** Passes nothing on any more, in either direction. */
  stall(): void {
    this.#stalled = true;
  }

  /** Ends all connections. */
  cut(): void {
    for (const { ours, theirs } of this.#pairs) {
      ours.terminate();
      theirs?.terminate();
    }
    this.#pairs.clear();
  }

  /** Ends all connections and gives the path back, if the real socket is still there. */
  [Symbol.dispose](): void {
    this.cut();
    this.#server.stop(true);
    rmSync(this.path, { force: true });
    try {
      renameSync(this.#realPath, this.path);
    } catch {
      // Its QEMU has ended, and the directory with it.
    }
  }
}
