/** Every route of the REST interface. */
import type { Route } from "../route.ts";
import { fileRoutes } from "./files.ts";
import { imageRoutes } from "./images.ts";
import { operationRoutes } from "./operations.ts";
import { snapshotRoutes } from "./snapshots.ts";
import { streamRoutes } from "./streams.ts";
import { systemRoutes } from "./system.ts";
import { templateRoutes } from "./templates.ts";
import { vmRoutes } from "./vms.ts";
import { volumeRoutes } from "./volumes.ts";

export const routes: readonly Route[] = [
  ...systemRoutes,
  ...vmRoutes,
  ...streamRoutes,
  ...fileRoutes,
  ...templateRoutes,
  ...imageRoutes,
  ...volumeRoutes,
  ...snapshotRoutes,
  ...operationRoutes,
];
