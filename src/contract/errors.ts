/**
 * Errors as every layer throws them and as the REST interface, the CLI and the library report them.
 * `kind` says what the caller can do about it; `code` is specific, stable and listed in docs/API.md.
 */

/** What the caller can do. The names follow the gRPC/containerd classes. */
export type ErrorKind =
  | "invalid_argument"
  | "not_found"
  | "already_exists"
  | "failed_precondition"
  | "resource_exhausted"
  | "unavailable"
  | "deadline_exceeded"
  | "cancelled"
  | "permission_denied"
  | "data_loss"
  | "internal";

/** Per kind: HTTP status of the REST interface and exit code of the CLI (125 and up as docker's). */
export const KINDS: Readonly<Record<ErrorKind, { httpStatus: number; exitCode: number }>> = {
  invalid_argument: { httpStatus: 400, exitCode: 125 },
  not_found: { httpStatus: 404, exitCode: 125 },
  already_exists: { httpStatus: 409, exitCode: 125 },
  failed_precondition: { httpStatus: 412, exitCode: 125 },
  resource_exhausted: { httpStatus: 507, exitCode: 125 },
  unavailable: { httpStatus: 503, exitCode: 125 },
  deadline_exceeded: { httpStatus: 504, exitCode: 124 },
  cancelled: { httpStatus: 499, exitCode: 130 },
  permission_denied: { httpStatus: 403, exitCode: 125 },
  data_loss: { httpStatus: 500, exitCode: 125 },
  internal: { httpStatus: 500, exitCode: 125 },
};

/** Every error code with its kind. A code is never renamed or reused. */
export const CODES = {
  invalid_argument: "invalid_argument",
  vm_not_found: "not_found",
  template_not_found: "not_found",
  image_not_found: "not_found",
  operation_not_found: "not_found",
  volume_not_found: "not_found",
  route_not_found: "not_found",
  file_not_found: "not_found",
  name_in_use: "already_exists",
  id_ambiguous: "invalid_argument",
  idempotency_conflict: "already_exists",
  vm_not_running: "failed_precondition",
  vm_running: "failed_precondition",
  resource_in_use: "failed_precondition",
  image_invalid: "invalid_argument",
  port_in_use: "failed_precondition",
  registry_unreachable: "unavailable",
  registry_denied: "permission_denied",
  build_failed: "invalid_argument",
  user_not_found: "invalid_argument",
  hook_failed: "failed_precondition",
  application_not_ready: "deadline_exceeded",
  rootfs_invalid: "invalid_argument",
  memory_too_small: "invalid_argument",
  memory_exceeds_host: "resource_exhausted",
  /** All VMs together could take more than is allowed. */
  memory_overcommitted: "resource_exhausted",
  /** The host has too little memory right now, and nothing more that could give any back. */
  host_memory_low: "resource_exhausted",
  template_corrupt: "data_loss",
  template_incompatible: "failed_precondition",
  template_limit: "resource_exhausted",
  snapshot_not_found: "not_found",
  /** A VM that waits in it, or that was started from it, needs it. */
  snapshot_in_use: "failed_precondition",
  snapshot_corrupt: "data_loss",
  /** Made for another QEMU, kernel, CPU ...; the details have the fields that differ. */
  snapshot_incompatible: "failed_precondition",
  /** The VM has something that no snapshot can hold, e.g. a volume that others may use after it. */
  not_capturable: "failed_precondition",
  store_corrupt: "data_loss",
  disk_full: "resource_exhausted",
  pool_exhausted: "resource_exhausted",
  limit_reached: "resource_exhausted",
  qemu_not_found: "failed_precondition",
  qemu_spawn_failed: "internal",
  qemu_exited: "unavailable",
  qmp_protocol_violation: "internal",
  qmp_command_failed: "internal",
  qmp_disconnected: "unavailable",
  connection_failed: "unavailable",
  state_load_failed: "internal",
  boot_failed: "internal",
  kernel_not_found: "failed_precondition",
  artifact_missing: "failed_precondition",
  accelerator_unusable: "failed_precondition",
  /** This kernel merges no memory of processes that ask for it. */
  merge_unsupported: "failed_precondition",
  agent_not_ready: "deadline_exceeded",
  agent_disconnected: "unavailable",
  agent_protocol_violation: "internal",
  agent_request_failed: "internal",
  command_not_found: "not_found",
  command_not_executable: "failed_precondition",
  file_operation_failed: "failed_precondition",
  deadline_exceeded: "deadline_exceeded",
  cancelled: "cancelled",
  daemon_running: "already_exists",
  daemon_unreachable: "unavailable",
  daemon_start_failed: "unavailable",
  setup_required: "failed_precondition",
  root_required: "permission_denied",
  unauthorized: "permission_denied",
  tool_missing: "failed_precondition",
  tool_failed: "internal",
  system_call_failed: "internal",
  internal: "internal",
} as const satisfies Record<string, ErrorKind>;

/** A stable error code. */
export type ErrorCode = keyof typeof CODES;

/** What an error may carry besides its message; every key is optional and its meaning fixed. */
export interface ErrorDetails {
  /** Exit code of the process that ended. */
  exitCode?: number;
  /** Signal name that ended the process, e.g. `SIGKILL`. */
  signal?: string;
  /** Last lines of the process' standard error. */
  stderrTail?: string;
  /** Last lines of the guest's console. */
  consoleTail?: string;
  /** errno of a failed system call or guest request. */
  errno?: number;
  /** Path on the host, or in the guest if the message says so. */
  path?: string;
  /** All problems found by a validator, one entry each. */
  problems?: readonly string[];
  /** The command that puts it right. */
  remedy?: string;
  /** Class and description of a QMP error. */
  qmp?: { class: string; description: string };
  /** Memory that VMs could take together before (`memory_overcommitted`), and what they may. */
  committedBytes?: number;
  limitBytes?: number;
  /** VMs that have a QEMU, or are about to. */
  vms?: number;
  /** Memory that the host has available (`host_memory_low`), what of it starts that are under way will take, and what must be left. */
  availableBytes?: number;
  promisedBytes?: number;
  reserveBytes?: number;
  /** What is asked for besides, counted as the limit that it exceeds. */
  wantedBytes?: number;
  /** Failures of the clean-up that followed; they never replace the cause. */
  cleanup?: readonly string[];
  [key: string]: unknown;
}

/** Constructor options of {@link MayflyError}. */
export interface ErrorOptions {
  stage?: string;
  vmId?: string;
  details?: ErrorDetails;
  cause?: unknown;
}

/** The one error class. The message says what could not be done, to what, and both values. */
export class MayflyError extends Error {
  override readonly name = "MayflyError";
  readonly code: ErrorCode;
  readonly kind: ErrorKind;
  readonly stage: string | undefined;
  readonly vmId: string | undefined;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.kind = CODES[code];
    this.stage = options.stage;
    this.vmId = options.vmId;
    this.details = options.details ?? {};
  }
}

/** RFC 9457 problem document, as the REST interface sends it (`application/problem+json`). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: ErrorCode;
  kind: ErrorKind;
  stage?: string;
  vmId?: string;
  details?: ErrorDetails;
}

/** The one place where an error becomes a problem document: in answers, in records of VMs, and on standard error with `--json`. */
export function problemDocument({ code, kind, message, stage, vmId, details }: MayflyError): Problem {
  const title = code.replaceAll("_", " ");
  return {
    type: `urn:mayfly:problem:${code}`,
    title: title.charAt(0).toUpperCase() + title.slice(1),
    status: KINDS[kind].httpStatus,
    detail: message,
    code,
    kind,
    ...(stage === undefined ? {} : { stage }),
    ...(vmId === undefined ? {} : { vmId }),
    ...(Object.keys(details).length === 0 ? {} : { details }),
  };
}
