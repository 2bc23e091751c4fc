/** What an errno from the guest agent means, by the kind of request. */
import { type ErrorCode, MayflyError } from "../contract/errors.ts";
import { errnoName } from "../sys/libc.ts";

const ENOENT = 2;
const E2BIG = 7;
const ENOEXEC = 8;
const EAGAIN = 11;
const ENOMEM = 12;
const EACCES = 13;
const EBUSY = 16;
const ENOTDIR = 20;
const EISDIR = 21;
const ENAMETOOLONG = 36;

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

/** The error of an EXEC that the agent refused. */
export function execFailure(command: string, cwd: string, errno: number): MayflyError {
  const where = errno === ENOENT || errno === ENOTDIR ? ` (the command, or its working directory ${cwd})` : "";
  const why = errno === EBUSY ? "the VM has not been given its identity yet (EBUSY)" : errnoName(errno) + where;
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
