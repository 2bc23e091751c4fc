/**
 * Mayfly's library: `import { connect } from "mayfly"`. Runs on Bun, and on Node 20 or later.
 * @example
 * const mayfly = await connect();
 * const process = await mayfly.vms.run({ command: ["uname", "-r"], autoRemove: true });
 * for await (const { bytes } of process.output) console.log(new TextDecoder().decode(bytes));
 * const { exitCode } = await process.exited;
 */
import { MayflyError } from "../contract/errors.ts";
import { type Client, clientOver } from "./client.ts";
import type { Target, Transport } from "./transport.ts";

export type {
  BuildImageRequest,
  BuildTemplateRequest,
  CaptureTimes,
  CheckpointRequest,
  CreateVmRequest,
  CreateVolumeRequest,
  DiskUsage,
  Event,
  ExecRequest,
  ExecResult,
  ExportSnapshotRequest,
  FileStat,
  ForkRequest,
  ForkResult,
  Image,
  ImageDetails,
  ImportImageRequest,
  ImportSnapshotRequest,
  LoadImageRequest,
  Operation,
  Origin,
  PoolRequest,
  PruneImagesRequest,
  PruneResult,
  PruneSnapshotsRequest,
  PullImageRequest,
  ReadyProbe,
  RefreshResult,
  Snapshot,
  SnapshotDiff,
  SystemInfo,
  Template,
  TreeNode,
  VerifyResult,
  Version,
  Vm,
  VmChange,
  VmProcess,
  VmState,
  VmStats,
  Volume,
  WarmUp,
} from "../contract/api.ts";
export { type ErrorCode, type ErrorDetails, type ErrorKind, MayflyError } from "../contract/errors.ts";
export type { Client } from "./client.ts";
export type { FileContent, Files, WriteOptions } from "./files.ts";
export type { Images, PullResult } from "./images.ts";
export type { OperationOptions, Operations } from "./operations.ts";
export type { Process } from "./process.ts";
export type { OutputChunk } from "./raw-stream.ts";
export type { CallOptions } from "./rest.ts";
export type { OutputName, ProcessExit } from "./session.ts";
export type { Snapshots } from "./snapshots.ts";
export type { Templates } from "./stores.ts";
export type { EventOptions, System } from "./system.ts";
export type { OnceOptions, Vms } from "./vms.ts";
export type { Volumes } from "./volumes.ts";

/** Which daemon to talk to; without any, the local one. */
export interface ConnectOptions {
  /** Path of its unix socket. `MAYFLY_RUN_DIR` moves the default, `/run/mayfly/mayfly.sock`. */
  socketPath?: string;
  /** `http://host:port` or `https://host:port` instead. */
  url?: string;
  /** Bearer token, which TCP needs. */
  token?: string;
}

/**
 * Connects to a daemon and asks for its version. The daemon has to be there: the library does not start it.
 * @throws MayflyError `daemon_unreachable`, `unauthorized`, `invalid_argument`.
 */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const client = clientOver(await transportTo(targetOf(options)));
  try {
    await client.system.version();
    return client;
  } catch (error) {
    await client.close();
    throw error;
  }
}

function targetOf({ socketPath, url, token }: ConnectOptions): Target {
  if (socketPath !== undefined && url !== undefined) {
    throw new MayflyError("invalid_argument", `Cannot connect to both socketPath ${socketPath} and url ${url}`);
  }
  if (url === undefined) {
    const runDir = process.env["MAYFLY_RUN_DIR"] || "/run/mayfly";
    return { address: { socketPath: socketPath ?? `${runDir}/mayfly.sock` }, token };
  }
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new MayflyError("invalid_argument", `Cannot connect to ${JSON.stringify(url)}: it is no http or https URL`);
  }
  return { address: { url: new URL(url) }, token };
}

async function transportTo(target: Target): Promise<Transport> {
  if (process.versions["bun"] !== undefined) return (await import("./transport-bun.ts")).bunTransport(target);
  return (await import("./transport-node.ts")).nodeTransport(target);
}
