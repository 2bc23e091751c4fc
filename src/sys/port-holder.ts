/** Which process listens on a TCP port of this host: /proc/net/tcp and tcp6 have the socket's inode, /proc/PID/fd who has it open. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** A process by its pid and name. */
export interface PortHolder {
  pid: number;
  name: string;
}

/** `st` of a listening socket (Linux' include/net/tcp_states.h, TCP_LISTEN). */
const LISTENING = "0A";

/**
 * Who listens on a port so that `address` cannot be bound.
 * @returns undefined when nobody is found: without the right to look, or from within another PID namespace.
 */
export function portHolder(address: string, port: number): PortHolder | undefined {
  const inodes = listeningInodes(port);
  const inode =
    inodes.get(hexOf(address)) ?? [...inodes].find(([bound]) => /^0+$/.test(bound))?.[1] ?? [...inodes][0]?.[1];
  if (inode === undefined) return undefined;
  const target = `socket:[${inode}]`;
  for (const entry of readdirSync("/proc")) {
    if (/^\d+$/.test(entry) && hasOpen(entry, target)) return { pid: Number(entry), name: nameOf(entry) };
  }
  return undefined;
}

/** Inodes of sockets that listen on a port, by their address as the kernel writes it. */
function listeningInodes(port: number): Map<string, string> {
  const wanted = port.toString(16).toUpperCase().padStart(4, "0");
  const found = new Map<string, string>();
  for (const table of ["tcp", "tcp6"]) {
    for (const line of readOr(`/proc/net/${table}`, "").split("\n").slice(1)) {
      const [, local = "", , state, , , , , , inode] = line.trim().split(/\s+/);
      const [address, hexPort] = local.split(":");
      if (hexPort === wanted && state === LISTENING && address !== undefined && inode !== undefined)
        found.set(address, inode);
    }
  }
  return found;
}

/** An IPv4 address as /proc/net/tcp has it: the four bytes in the host's order. */
function hexOf(address: string): string {
  const bytes = address.split(".").map(Number);
  if (bytes.length !== 4) return "";
  return bytes
    .reverse()
    .map((byte) => byte.toString(16).toUpperCase().padStart(2, "0"))
    .join("");
}

function hasOpen(pid: string, target: string): boolean {
  try {
    const directory = `/proc/${pid}/fd`;
    return readdirSync(directory).some((fd) => linkOr(`${directory}/${fd}`) === target);
  } catch {
    return false;
  }
}

function nameOf(pid: string): string {
  return readOr(`/proc/${pid}/comm`, "a process").trim();
}

function linkOr(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return otherwise;
  }
}
