/** The daemon as a whole, and what happens in it. */
import type { DiskUsage, Event, PruneResult, SystemInfo, Version } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { serverEvents } from "./events.ts";
import type { CallOptions, Rest } from "./rest.ts";

/** What can be asked of the daemon itself. */
export interface System {
  version(options?: CallOptions): Promise<Version>;
  info(options?: CallOptions): Promise<SystemInfo>;
  diskUsage(options?: CallOptions): Promise<DiskUsage>;
  /** Removes ended VMs, and templates that fit this host no more. */
  prune(options?: CallOptions): Promise<PruneResult>;
}

/** Which events are wanted. */
export interface EventOptions extends CallOptions {
  /** Only types that begin so, e.g. `vm.`. */
  type?: string;
  /** Only of the VM, template or image with this id. */
  id?: string;
  /** Called when the daemon has begun to send: nothing that happens from then on is missed. */
  onOpen?: () => void;
}

/** The calls for the daemon. */
export function system(rest: Rest): System {
  return {
    version: (options) => rest.json("GET", "/v1/version", options),
    info: (options) => rest.json("GET", "/v1/system/info", options),
    diskUsage: (options) => rest.json("GET", "/v1/system/df", options),
    prune: (options) => rest.json("POST", "/v1/system/prune", options),
  };
}

/** Events as they happen, until the loop is left, the signal fires or the daemon ends. @throws `resource_exhausted` kinds when the reader is too slow. */
export async function* events(rest: Rest, { type, id, onOpen, ...options }: EventOptions = {}): AsyncGenerator<Event> {
  const response = await rest.send("GET", "/v1/events", { ...options, query: { type, id } });
  onOpen?.();
  for await (const { event, data } of serverEvents(response.chunks())) {
    if (event === "overflow")
      throw new MayflyError("limit_reached", `Events were lost: more than the daemon keeps for a reader (${data})`);
    yield JSON.parse(data) as Event;
  }
}
