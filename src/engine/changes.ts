/** What a container has changed of its image, from the entries of its root's upper directory, by docker's rules. */
import type { AgentClient } from "../agent/client.ts";
import { decodeChanges, type SurveyedChange } from "../agent/survey.ts";
import type { Vm } from "../contract/api.ts";
import type { VmChange } from "../contract/inside.ts";
import type { Deadline } from "../sys/deadline.ts";
import { runSurvey } from "./survey.ts";

/** Made for every container, where its image lacks them. */
const OWN_FILES: ReadonlySet<string> = new Set([
  ...["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id"],
  "/dev/console",
]);
const OWN_DIRECTORIES = ["/dev", "/proc", "/sys", "/tmp", "/etc", "/run", "/run/secrets", "/run/mayfly"];

/**
 * The changes of a container, by path. Mounts are not part of its root, and what is made for them is no change of its own.
 * @throws `limit_reached`, `agent_request_failed`, `agent_protocol_violation`, `deadline_exceeded`.
 */
export async function listChanges(agent: AgentClient, mounts: Vm["mounts"], deadline: Deadline): Promise<VmChange[]> {
  const bytes = await runSurvey(agent, "changes", deadline);
  return describeChanges(
    decodeChanges(bytes),
    mounts.map(({ target }) => target),
  );
}

/** Changes of entries. @param targets of mounts, whose directories may have been made for them. */
export function describeChanges(entries: readonly SurveyedChange[], targets: readonly string[]): VmChange[] {
  const made = new Set(OWN_DIRECTORIES);
  for (const target of targets) for (const path of withParents(target)) made.add(path);
  /** Directories that something was added to or deleted from; that something was made in for the container. */
  const altered = new Set<string>();
  const prepared = new Set<string>();
  const changes: VmChange[] = [];
  // What is in a directory comes before it.
  for (const entry of [...entries].sort(deepestFirst)) {
    const { path } = entry;
    const kind = kindOf(entry, altered.has(path), prepared.has(path));
    const isOwn = OWN_FILES.has(path) || (entry.isDirectory && made.has(path) && !altered.has(path));
    if (kind === undefined || (kind === "added" && isOwn)) {
      if (kind !== undefined) prepared.add(parentOf(path));
      continue;
    }
    if (kind !== "changed") altered.add(parentOf(path));
    changes.push({ kind, path });
  }
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/**
 * Changes of one survey since an earlier one of the same image. Directories that were changed and still are there are left out: what is in them
 * is told.
 */
export function changesBetween(
  now: readonly SurveyedChange[],
  before: readonly SurveyedChange[],
  targets: readonly string[],
): VmChange[] {
  const [is, was] = [now, before].map((entries) => entriesByPath(entries, targets));
  const changes: VmChange[] = [];
  for (const path of new Set([...(was?.keys() ?? []), ...(is?.keys() ?? [])])) {
    const kind = OWN_FILES.has(path) ? undefined : kindBetween(is?.get(path), was?.get(path));
    if (kind !== undefined) changes.push({ kind, path });
  }
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}

type Told = SurveyedChange & Pick<VmChange, "kind">;

function entriesByPath(entries: readonly SurveyedChange[], targets: readonly string[]): Map<string, Told> {
  const known = new Map(entries.map((entry) => [entry.path, entry]));
  const told = describeChanges(entries, targets).flatMap(({ path, kind }) => {
    const entry = known.get(path);
    return entry === undefined ? [] : [{ ...entry, kind }];
  });
  return new Map(told.map((entry) => [entry.path, entry]));
}

/** @param is undefined: as in the image. @param was likewise. */
function kindBetween(is: Told | undefined, was: Told | undefined): VmChange["kind"] | undefined {
  if (was === undefined) return is?.kind;
  if (is === undefined) return { added: "deleted", deleted: "added", changed: "changed" }[was.kind] as VmChange["kind"];
  if (is.kind === "deleted") return was.kind === "deleted" ? undefined : "deleted";
  if (was.kind === "deleted") return "added";
  const isSame = is.stamp === was.stamp || (is.isDirectory && was.isDirectory);
  return isSame ? undefined : "changed";
}

/** A directory is copied up with what is written below it, and is then no change of its own. */
function kindOf(entry: SurveyedChange, isAltered: boolean, isPrepared: boolean): VmChange["kind"] | undefined {
  if (entry.isDeleted) return "deleted";
  if (!entry.inImage) return "added";
  if (!entry.isDirectory || !entry.directoryInImage) return "changed";
  const isSame = entry.sameOwner && (entry.sameTime || isPrepared);
  return isSame && !isAltered ? undefined : "changed";
}

function deepestFirst(a: SurveyedChange, b: SurveyedChange): number {
  return depth(b.path) - depth(a.path);
}

function depth(path: string): number {
  return path.split("/").length;
}

function parentOf(path: string): string {
  const parent = path.slice(0, path.lastIndexOf("/"));
  return parent === "" ? "/" : parent;
}

/** A path and the directories above it. */
function withParents(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "");
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join("/")}`);
}
