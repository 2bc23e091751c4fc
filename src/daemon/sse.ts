/** Server-sent events (WHATWG HTML, section 9.2), with a bound on what a slow reader can make the daemon keep. */

/** Events kept for one reader; when there are more the stream ends with an `overflow` event, and the reader asks anew. */
const QUEUE_LIMIT = 1024;
/** A comment is sent when nothing else was for so long, so that dead TCP peers are noticed. */
const HEARTBEAT_MS = 15_000;

/** What a source of events gets to work with. */
export interface EventSink {
  /** Sends one event with `data` as JSON. */
  send(type: string, data: unknown): void;
  /** Ends the stream after what was sent. */
  end(): void;
}

/**
 * An event stream.
 * @param subscribe called at once; it starts the source and returns the function that stops it, which is called once.
 * @param signal ends the stream: the client has gone or the daemon stops.
 */
export function eventStream(subscribe: (sink: EventSink) => () => void, signal: AbortSignal): Response {
  const queue = new EventQueue();
  const stop = subscribe(queue);
  return new Response(queue.frames(stop, signal), {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
}

class EventQueue implements EventSink {
  #frames: string[] = [": connected\n\n"];
  #ended = false;
  #id = 0;
  #wake: (() => void) | undefined;

  send(type: string, data: unknown): void {
    if (this.#ended) return;
    if (this.#frames.length >= QUEUE_LIMIT) {
      this.#frames.push(`event: overflow\ndata: {"kept":${QUEUE_LIMIT}}\n\n`);
      this.end();
      return;
    }
    this.#id += 1;
    this.#frames.push(`id: ${this.#id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
    this.#wake?.();
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async *frames(stop: () => void, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const encoder = new TextEncoder();
    const end = () => this.end();
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    try {
      while (true) {
        const frames = this.#frames.splice(0).join("");
        if (frames !== "") yield encoder.encode(frames);
        else if (this.#ended) return;
        else if (!(await this.#next())) yield encoder.encode(": alive\n\n");
      }
    } finally {
      signal.removeEventListener("abort", end);
      stop();
    }
  }

  /** Waits for an event or the end. @returns false when it is time for a heartbeat instead. */
  #next(): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#settle(resolve, false), HEARTBEAT_MS);
      timer.unref();
      this.#wake = () => {
        clearTimeout(timer);
        this.#settle(resolve, true);
      };
    });
  }

  #settle(resolve: (woken: boolean) => void, woken: boolean): void {
    this.#wake = undefined;
    resolve(woken);
  }
}
