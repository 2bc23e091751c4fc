/** From a request to its route: matching, authorisation, and errors as problem documents. */
import { MayflyError } from "../contract/errors.ts";
import { nowMs } from "../sys/deadline.ts";
import type { RequestConnection, RequestListener, StreamAcceptor } from "../sys/http.ts";
import { BodyTooLarge } from "./body.ts";
import { log } from "./log.ts";
import { problemResponse } from "./problem.ts";
import type { Method, Route, Services } from "./route.ts";

/** One node of the path tree: fixed segments go before the parameter. */
interface Node {
  readonly fixed: Map<string, Node>;
  parameter: Node | undefined;
  readonly routes: Route[];
}

/** Says whether a request may go on. @throws `unauthorized`. */
export type Gate = (request: Request) => void;

/** A listener that answers by the routes. `gate` is asked for all but open routes. */
export function dispatcher(services: Services, gate: Gate): RequestListener {
  const tree = treeOf(services.routes);
  return async (request, connection) => {
    const startedMs = nowMs();
    const given = await answer(tree, services, gate, request, connection).catch((error) => failure(request, error));
    const status = given instanceof Response ? given.status : 101;
    log("debug", "request", { method: request.method, url: request.url, status, ms: Math.round(nowMs() - startedMs) });
    return given;
  };
}

async function answer(
  tree: Node,
  services: Services,
  gate: Gate,
  request: Request,
  connection: RequestConnection,
): Promise<Response | StreamAcceptor> {
  const url = new URL(request.url);
  const segments = url.pathname.split("/").slice(1);
  const found = find(tree, segments);
  const routes = found?.routes ?? [];
  const route = routes.find(({ method }) => method === request.method);
  if (route === undefined || !route.open) {
    gate(request);
    connection.allowSilence();
  }
  if (route === undefined)
    throw new NoRoute(request.method, url.pathname, [...new Set(routes.map(({ method }) => method))]);
  return route.run(services, request, url, parameters(route, segments));
}

/** Nothing is served at this path, or not with this method. */
class NoRoute extends MayflyError {
  constructor(
    method: string,
    path: string,
    readonly allowed: readonly Method[],
  ) {
    const known = allowed.length > 0;
    super(
      "route_not_found",
      known ? `${path} takes ${allowed.join(", ")}, not ${method}` : `There is nothing at ${path}`,
    );
  }
}

function failure(request: Request, error: unknown): Response {
  if (error instanceof NoRoute && error.allowed.length > 0)
    return problemResponse(error, 405, { allow: error.allowed.join(", ") });
  if (error instanceof BodyTooLarge) return problemResponse(error, 413);
  if (error instanceof MayflyError && error.code === "unauthorized")
    return problemResponse(error, 401, { "www-authenticate": "Bearer" });
  const response = problemResponse(error);
  // Other errors were logged when they became problems.
  if (response.status >= 500 && error instanceof MayflyError) {
    const { code, message, stage, vmId } = error;
    log("warn", "request failed", {
      method: request.method,
      path: new URL(request.url).pathname,
      status: response.status,
      code,
      stage,
      vm: vmId,
      error: message,
    });
  }
  return response;
}

function treeOf(routes: readonly Route[]): Node {
  const root = node();
  for (const route of routes) {
    let at = root;
    for (const segment of route.path.split("/").slice(1))
      at = segment.startsWith("{") ? parameterOf(at) : fixedOf(at, segment);
    at.routes.push(route);
  }
  return root;
}

function node(): Node {
  return { fixed: new Map(), parameter: undefined, routes: [] };
}

function parameterOf(parent: Node): Node {
  parent.parameter ??= node();
  return parent.parameter;
}

function fixedOf(parent: Node, segment: string): Node {
  const child = parent.fixed.get(segment) ?? node();
  parent.fixed.set(segment, child);
  return child;
}

/** The node of a path. A fixed segment hides the parameter beside it only where it leads to routes. */
function find(at: Node, segments: readonly string[]): Node | undefined {
  const [segment, ...rest] = segments;
  if (segment === undefined) return at.routes.length > 0 ? at : undefined;
  const fixed = at.fixed.get(segment);
  const found = fixed === undefined ? undefined : find(fixed, rest);
  if (found !== undefined || segment === "" || at.parameter === undefined) return found;
  return find(at.parameter, rest);
}

function parameters(route: Route, segments: readonly string[]): Record<string, string> {
  const names = route.path.split("/").slice(1);
  return Object.fromEntries(
    names.flatMap((name, index) => (name.startsWith("{") ? [[name.slice(1, -1), decode(segments[index] ?? "")]] : [])),
  );
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new MayflyError("invalid_argument", `Cannot decode the path's part ${JSON.stringify(segment)}`);
  }
}
