/** Reaching the daemon from the command line: where it is, and starting it when it is not there. */

import type { Address, Transport, TransportRequest } from "../client/transport.ts";
import { bunTransport } from "../client/transport-bun.ts";
import { MayflyError } from "../contract/errors.ts";
import { daemonSocketPath, runDirectory } from "../sys/directories.ts";
import type { GlobalOptions } from "./specification.ts";

/**
 * The address that a host option or `MAYFLY_HOST` names; `undefined` without either.
 * @throws MayflyError `invalid_argument`.
 */
export function parseHost(host: string | undefined): Address | undefined {
  const text = host ?? process.env["MAYFLY_HOST"];
  if (text === undefined || text === "") return undefined;
  if (text.startsWith("unix://")) return { socketPath: text.slice("unix://".length) };
  if (text.startsWith("/")) return { socketPath: text };
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.pathname !== "/") {
    throw new MayflyError(
      "invalid_argument",
      `--host is ${JSON.stringify(text)}, which is neither unix:///path nor http://host:port`,
    );
  }
  return { url };
}

/**
 * The way to the daemon. Without a host option the local one, which is started when nobody listens on its socket, unless
 * `MAYFLY_NO_START` is 1.
 * `MAYFLY_TOKEN` is the bearer token.
 */
export function openTransport(global: GlobalOptions): Transport {
  const address = parseHost(global.host);
  const token = process.env["MAYFLY_TOKEN"] || undefined;
  if (address !== undefined) return bunTransport({ address, token });
  return startingTransport(
    bunTransport({ address: { socketPath: daemonSocketPath(runDirectory()) }, token: undefined }),
  );
}

/**
 * A transport that starts the local daemon and asks again when nobody listened: nothing had been sent then. A body that can be read only once
 * is sent when somebody has answered.
 */
function startingTransport(transport: Transport): Transport {
  const orStart = async <T>(attempt: () => Promise<T>, more: readonly string[] = []): Promise<T> => {
    const isNobodyThere = (error: unknown) => isNobodyListening(error, more);
    try {
      return await attempt();
    } catch (error) {
      if (!isNobodyThere(error) || process.env["MAYFLY_NO_START"] === "1") throw error;
    }
    const { startDaemon } = await import("./daemon-start.ts");
    return startDaemon(attempt, isNobodyThere);
  };
  return {
    async request(request) {
      if (isRepeatable(request)) return orStart(() => transport.request(request));
      const { signal } = request;
      await orStart(async () => {
        const greeting = { method: "GET", path: "/v1/version", ...(signal === undefined ? {} : { signal }) } as const;
        await (await transport.request(greeting)).text();
      });
      return transport.request(request);
    },
    // A stream that breaks during its handshake has asked for nothing yet: its daemon was just ending.
    openSocket: (path, events) => orStart(() => transport.openSocket(path, events), ["ECONNRESET"]),
    close: () => transport.close(),
  };
}

function isRepeatable({ body }: TransportRequest): boolean {
  return body === undefined || typeof body === "string" || body instanceof Uint8Array;
}

/** Whether an error says that no daemon is there: no socket, a stale one, or one of `more` codes of the system. */
function isNobodyListening(error: unknown, more: readonly string[]): boolean {
  if (!(error instanceof MayflyError) || error.code !== "daemon_unreachable") return false;
  return ["ENOENT", "ECONNREFUSED", ...more].includes(String(error.details["systemCode"]));
}
