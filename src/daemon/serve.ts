/** Serves an engine: on a unix socket, and on TCP for those with the token. */
import { ForkRequest, StreamRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Engine } from "../engine/interface.ts";
import { listeningPath } from "../sys/adopted-listener.ts";
import { Deadline } from "../sys/deadline.ts";
import { askOverUnix, type HttpServer, type RequestListener, serveHttp } from "../sys/http.ts";
import { freeSocketPath, grantSocket, privately } from "../sys/listening-socket.ts";
import { dispatcher, type Gate } from "./dispatch.ts";
import { IdempotencyKeys } from "./idempotency.ts";
import { STOP_LIMIT_MS } from "./limits.ts";
import { Operations } from "./operations.ts";
import type { Services } from "./route.ts";
import { routes } from "./routes/table.ts";
import { tokenGate } from "./token.ts";

/** Members of this group may use the socket. */
const SOCKET_GROUP = "mayfly";
/** How long a dead daemon's socket may take to show that it is dead, in milliseconds. */
const PROBE_LIMIT_MS = 2_000;

/** Where to serve. */
export interface ServeOptions {
  socketPath: string;
  /** A descriptor that listens on a unix socket already, as systemd passes it; socketPath is not used then. */
  inherited?: number;
  tcp?: { host: string; port: number; token: string };
}

/** A served engine. */
export interface Serving {
  /** What is listened on, e.g. `unix:/run/mayfly/mayfly.sock`. */
  readonly addresses: readonly string[];
  /** Port of the TCP listener, if there is one. */
  readonly tcpPort: number | undefined;
  /** Stops listening and cuts open connections; running operations are cancelled. The engine is not closed. */
  stop(): Promise<void>;
}

/**
 * Starts serving.
 * @throws `daemon_running` when another daemon answers on the socket, `connection_failed` when an address cannot be bound,
 * `invalid_argument` when TCP is asked for without a token.
 */
export async function serve(engine: Engine, options: ServeOptions): Promise<Serving> {
  const { tcp } = options;
  if (tcp !== undefined && tcp.token === "") {
    throw new MayflyError("invalid_argument", `Cannot listen on ${tcp.host}:${tcp.port} without a token`);
  }
  warmUp();
  const operations = new Operations();
  const services: Services = {
    engine,
    operations,
    vmCreations: new IdempotencyKeys(),
    checkpoints: new IdempotencyKeys(),
    forks: new IdempotencyKeys(),
    routes,
  };
  const servers: HttpServer[] = [];
  try {
    servers.push(await serveUnix(services, options));
    if (tcp !== undefined) servers.push(serveHttp(tcp, dispatcher(services, tokenGate(tcp.token))));
  } catch (error) {
    await Promise.all(servers.map((server) => server.stop(true)));
    throw error;
  }
  return {
    addresses: servers.map((server) => server.address),
    tcpPort: servers.find((server) => server.port !== undefined)?.port,
    async stop() {
      operations.cancelAll();
      const stopped = Promise.all(servers.map((server) => server.stop(true)));
      await Deadline.after(STOP_LIMIT_MS)
        .race(stopped, "the end of open connections")
        .catch(() => undefined);
    },
  };
}

/** Schemas are compiled at their first use, which takes several milliseconds: they shall not be the first request's. */
function warmUp(): void {
  StreamRequest.safeParse({ type: "create", request: { command: ["true"], autoRemove: true } });
  ForkRequest.safeParse({ count: 1, namePrefix: "one" });
}

/** On the unix socket the file's mode says who may connect. */
const everyone: Gate = () => undefined;

async function serveUnix(services: Services, { socketPath, inherited }: ServeOptions): Promise<HttpServer> {
  const listener = dispatcher(services, everyone);
  if (inherited !== undefined) return serveInherited(listener, inherited, socketPath);
  await freeSocketPath(socketPath, Deadline.after(PROBE_LIMIT_MS));
  const server = privately(() => serveHttp({ unix: socketPath }, listener));
  await grantSocket(socketPath, SOCKET_GROUP);
  return server;
}

/** Serves on a socket of systemd's, whose mode and owner are systemd's matter, and makes sure that it answers. */
async function serveInherited(listener: RequestListener, fd: number, socketPath: string): Promise<HttpServer> {
  const path = listeningPath(fd);
  const placeholder = `${socketPath}.placeholder`;
  await freeSocketPath(placeholder, Deadline.after(PROBE_LIMIT_MS));
  const server = privately(() => serveHttp({ inherited: fd, path, placeholder }, listener));
  try {
    await Deadline.after(PROBE_LIMIT_MS).race(askOverUnix(path, "/healthz"), `an answer over ${path}`);
    return server;
  } catch (error) {
    await server.stop(true);
    throw error;
  }
}
