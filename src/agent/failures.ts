/** What an errno from the guest agent means, by the kind of request. */
import { type ErrorCode, MayflyError } from "../contract/errors.ts";
import { errnoName } from "../sys/libc.ts";

const ENOENT = 2;
const ESRCH = 3;
const E2BIG = 7;
const ENOEXEC = 8;
const EAGAIN = 11;
const ENOMEM = 12;
const EACCES = 13;
const EBUSY = 16;
const EEXIST = 17;
const ENOTDIR = 20;
const EISDIR = 21;
const ENAMETOOLONG = 36;
const ENFILE = 23;
const EMFILE = 24;

const EXEC_CODES: Readonly<Record<number, ErrorCode>> = {
  [ENOENT]: "command_not_found",
  [EACCES]: "command_not_executable",
  [ENOEXEC]: "command_not_executable",
  [ENOTDIR]: "command_not_executable",
  [EISDIR]: "command_not_executable",
  [EAGAIN]: "limit_reached",
  [ENOMEM]: "limit_reached",
  [E2BIG]: "invalid_argument",
  [ENAMETOOLONG]: "invalid_argument",
};

const EXEC_REASONS: Readonly<Record<number, string>> = {
  [EBUSY]: "the VM has not been given its identity yet (EBUSY)",
  [ESRCH]: "its container's first process has ended (ESRCH)",
  [EEXIST]: "its container has a first process already (EEXIST)",
};

/** The error of an EXEC that the agent refused. */
export function execFailure(command: string, cwd: string, errno: number): MayflyError {
  const where = errno === ENOENT || errno === ENOTDIR ? ` (the command, or its working directory ${cwd})` : "";
  const why = EXEC_REASONS[errno] ?? errnoName(errno) + where;
  const message = `Cannot run ${JSON.stringify(command)} in the VM: ${why}`;
  return new MayflyError(EXEC_CODES[errno] ?? "agent_request_failed", message, { details: { errno, path: command } });
}

/** The error of a file request; `what` says what was to be done: `read`. */
export function fileFailure(what: string, path: string, errno: number): MayflyError {
  const code = errno === ENOENT ? "file_not_found" : errno === EAGAIN ? "limit_reached" : "file_operation_failed";
  return new MayflyError(code, `Cannot ${what} ${path} in the VM: ${errnoName(errno)}`, { details: { errno, path } });
}

/** The error of any other request; `what` says what was to be done: `freeze the workload`. */
export function requestFailure(what: string, errno: number): MayflyError {
  const message = `The guest agent cannot ${what}: ${errnoName(errno)}`;
  return new MayflyError("agent_request_failed", message, { details: { errno } });
}

/** Where a connection goes to, as messages say it. */
function place({ port, address }: { port: number; address?: string }): string {
  return address === undefined || address === "" ? `port ${port} in the VM` : `${address}, port ${port}, in the VM`;
}

/** The error of a CONNECT that the agent refused. */
export function connectFailure(target: { port: number; address?: string }, errno: number): MayflyError {
  const code = errno === EAGAIN || errno === ENFILE || errno === EMFILE ? "limit_reached" : "connection_failed";
  return new MayflyError(code, `Cannot connect to ${place(target)}: ${errnoName(errno)}`, { details: { errno } });
}

/** The error of a connection that stood and broke. */
export function resetFailure(target: { port: number; address?: string }, errno: number): MayflyError {
  const message = `The connection to ${place(target)} broke: ${errnoName(errno)}`;
  return new MayflyError("connection_failed", message, { details: { errno } });
}

/** The error of a connection that was given up before it stood. */
export function droppedFailure(target: { port: number; address?: string }): MayflyError {
  return new MayflyError("cancelled", `The connection to ${place(target)} was given up before it stood`);
}

/** The error when all places are taken. */
export function connectionLimit(target: { port: number; address?: string }, limit: number): MayflyError {
  const message = `Cannot connect to ${place(target)}: there are ${limit} connections already, and no more are possible`;
  return new MayflyError("limit_reached", message);
}
