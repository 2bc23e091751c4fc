/** Deadlines of requests, in milliseconds. */

/** Creating a VM: its template may have to be built first. */
export const CREATE_LIMIT_MS = 600_000;
/** What needs an answer from a guest or from QEMU. */
export const REQUEST_LIMIT_MS = 30_000;
/** Moving a file of any size in or out. */
export const TRANSFER_LIMIT_MS = 3_600_000;
/** Reading a whole template for verification. */
export const VERIFY_LIMIT_MS = 600_000;
/** How long the main process of a VM has after SIGHUP when the client that ran it has gone. */
export const HANGUP_GRACE_MS = 2_000;
/** How long open requests have to end when the daemon stops. */
export const STOP_LIMIT_MS = 5_000;
