/** The typed client for commands that are not in a hurry. */
import { type Client, clientOver } from "../client/client.ts";
import { openTransport } from "./connection.ts";
import type { GlobalOptions } from "./specification.ts";

/** A client of the daemon that the options name; the local one is started when it is not there. */
export function openClient(global: GlobalOptions): Client {
  return clientOver(openTransport(global));
}
