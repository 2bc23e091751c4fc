/** Files in a guest, between the agent's terms and those of the REST interface. */
import type { AgentClient } from "../agent/client.ts";
import type { DirectoryEntry, FileStat as GuestStat } from "../agent/results.ts";
import type { FileStat } from "../contract/api.ts";
import type { Deadline } from "../sys/deadline.ts";

/** File types by the format bits of st_mode (inode(7)). */
const TYPES: ReadonlyMap<number, FileStat["type"]> = new Map([
  [0o010000, "fifo"],
  [0o020000, "character"],
  [0o040000, "directory"],
  [0o060000, "block"],
  [0o100000, "file"],
  [0o120000, "symlink"],
  [0o140000, "socket"],
]);

/** A stat as REST shows it. */
export function describeFile(name: string, stat: GuestStat): FileStat {
  return {
    name,
    type: TYPES.get(stat.mode & 0o170000) ?? "file",
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    size: stat.sizeBytes,
    mtime: new Date(Number(stat.mtimeNs / 1_000_000n)).toISOString(),
    ...(stat.target === undefined ? {} : { target: stat.target }),
  };
}

/** All entries of a directory, by name. */
export async function listDirectory(agent: AgentClient, path: string, deadline: Deadline): Promise<FileStat[]> {
  const entries: DirectoryEntry[] = [];
  for await (const entry of agent.list(path, deadline)) entries.push(entry);
  return entries.map((entry) => describeFile(entry.name, entry)).sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A file's contents as they come; the guest is held back while nobody takes them. */
export async function readContents(
  agent: AgentClient,
  path: string,
  deadline: Deadline,
): Promise<{ stat: FileStat; content: AsyncIterable<Uint8Array> }> {
  const stat = await agent.stat(path, deadline);
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const read = agent.readFile(path, (chunk) => writer.write(chunk.slice()), deadline);
  await read.opened;
  read.done
    .then(
      () => writer.close(),
      (error: unknown) => writer.abort(error),
    )
    .catch(() => undefined);
  return { stat: describeFile(path.slice(path.lastIndexOf("/") + 1), stat), content: readable };
}

/** Writes a file; it appears whole or not at all. */
export async function writeContents(
  agent: AgentClient,
  path: string,
  content: AsyncIterable<Uint8Array>,
  options: { mode: number; uid: number; gid: number; parents: boolean; deadline: Deadline },
): Promise<void> {
  const { deadline, ...spec } = options;
  const writer = agent.writeFile(path, spec, deadline);
  try {
    await writer.opened;
    for await (const chunk of content) {
      // False: the guest has ended the transfer; `end` says why.
      if (!(await writer.write(chunk))) break;
    }
  } catch (error) {
    await writer.abort().catch(() => undefined);
    throw error;
  }
  await writer.end();
}
