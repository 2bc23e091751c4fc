/** Where Mayfly keeps its state and its sockets, unless the environment says otherwise. */

/** Directory of what outlives a reboot: templates, images, VMs' logs, the database. `MAYFLY_STATE_DIR` or `/var/lib/mayfly`. */
export function stateDirectory(): string {
  return process.env["MAYFLY_STATE_DIR"] || "/var/lib/mayfly";
}

/** Directory of sockets and locks. `MAYFLY_RUN_DIR` or `/run/mayfly`. */
export function runDirectory(): string {
  return process.env["MAYFLY_RUN_DIR"] || "/run/mayfly";
}

/** The daemon's unix socket in a run directory. */
export function daemonSocketPath(runDir: string): string {
  return `${runDir}/mayfly.sock`;
}
