/** The typed client: everything that the REST interface offers, over any transport. */
import type { Event } from "../contract/api.ts";
import { type Files, files } from "./files.ts";
import { type Images, images } from "./images.ts";
import { type Operations, operations } from "./operations.ts";
import { Rest } from "./rest.ts";
import { type Snapshots, snapshots } from "./snapshots.ts";
import { type Templates, templates } from "./stores.ts";
import { type EventOptions, events, type System, system } from "./system.ts";
import type { Transport } from "./transport.ts";
import { type Vms, vms } from "./vms.ts";
import { type Volumes, volumes } from "./volumes.ts";

/** A client of one daemon. Every call throws MayflyError with the daemon's code, kind and details. */
export interface Client extends AsyncDisposable {
  readonly vms: Vms;
  readonly files: Files;
  readonly templates: Templates;
  readonly images: Images;
  readonly volumes: Volumes;
  readonly snapshots: Snapshots;
  readonly operations: Operations;
  readonly system: System;
  /** What happens, as it happens. */
  events(options?: EventOptions): AsyncIterable<Event>;
  /** Ends kept connections. */
  close(): Promise<void>;
}

/** A client over a transport. */
export function clientOver(transport: Transport): Client {
  const rest = new Rest(transport);
  return {
    vms: vms(rest),
    files: files(rest),
    templates: templates(rest),
    images: images(rest),
    volumes: volumes(rest),
    snapshots: snapshots(rest),
    operations: operations(rest),
    system: system(rest),
    events: (options) => events(rest, options),
    close: () => transport.close(),
    [Symbol.asyncDispose]: () => transport.close(),
  };
}
