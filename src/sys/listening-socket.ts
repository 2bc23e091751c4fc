/** The path of a listening unix socket: free it of a dead daemon's, and open it to whom it is for. */
import { chmod, chown, lstat, mkdir, readFile, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { connectUnix } from "./channel.ts";
import type { Deadline } from "./deadline.ts";
import { UNIX_PATH_MAX } from "./libc.ts";

/**
 * Makes `path` free to bind: its directory is made, and a socket that nobody listens on is removed.
 * @throws `daemon_running` when somebody answers there, `invalid_argument` when something else than a socket is there or the path is too long.
 */
export async function freeSocketPath(path: string, deadline: Deadline): Promise<void> {
  const bytes = Buffer.byteLength(path);
  if (bytes > UNIX_PATH_MAX) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot listen on ${path}: the path has ${bytes} bytes, a unix socket's at most ${UNIX_PATH_MAX}`,
    );
  }
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  const there = await lstat(path).catch(() => undefined);
  if (there === undefined) return;
  if (!there.isSocket()) {
    throw new MayflyError("invalid_argument", `Cannot listen on ${path}: something that is no socket is there`, {
      details: { path },
    });
  }
  if (await isAnswered(path, deadline)) {
    throw new MayflyError("daemon_running", `Cannot listen on ${path}: another daemon answers there`, {
      details: { path },
    });
  }
  await unlink(path);
}

/** Whether somebody takes connections on a unix socket. */
export async function isAnswered(path: string, deadline: Deadline): Promise<boolean> {
  const ignore = { data: () => undefined, closed: () => undefined };
  return connectUnix(path, ignore, deadline).then(
    (channel) => {
      channel.close();
      return true;
    },
    () => false,
  );
}

/**
 * Opens a bound socket to its owner, and to the members of `group` if there is such a group: mode 0660.
 * @returns whether the group was found and could be given the socket.
 */
export async function grantSocket(path: string, group: string): Promise<boolean> {
  const gid = await groupId(group);
  const given =
    gid !== undefined &&
    (await chown(path, -1, gid).then(
      () => true,
      () => false,
    ));
  await chmod(path, 0o660);
  return given;
}

/** Number of a group of /etc/group, or undefined. */
async function groupId(name: string): Promise<number | undefined> {
  const text = await readFile("/etc/group", "utf8").catch(() => "");
  const line = text.split("\n").find((entry) => entry.startsWith(`${name}:`));
  const gid = Number(line?.split(":")[2]);
  return Number.isInteger(gid) ? gid : undefined;
}

/** Runs `bind` so that what it makes in the file system is nobody else's until it is granted. */
export function privately<T>(bind: () => T): T {
  const before = process.umask(0o177);
  try {
    return bind();
  } finally {
    process.umask(before);
  }
}
