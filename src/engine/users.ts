/** Users by name: what `user[:group]` means with a root's /etc/passwd and /etc/group (passwd(5), group(5)). */
import { MayflyError } from "../contract/errors.ts";

/** The texts of /etc/passwd and /etc/group; empty where there is none. */
export interface Accounts {
  passwd: string;
  group: string;
}

/** A user as the kernel knows it. */
export interface ResolvedUser {
  uid: number;
  gid: number;
  /**
   * Supplementary groups, the first of them the user's own: a process that changes its group stays a member of it, as in docker and
   * containerd (CVE-2022-36109, CVE-2023-25173).
   */
  groups: number[];
  home: string;
}

/** Largest uid and gid; 2^32-1 means "no change" to the kernel. */
const MAX_ID = 2 ** 32 - 2;
/** The agent takes no more. */
const MAX_GROUPS = 256;

const fields = (text: string) =>
  text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.split(":"));

/** A number within the kernel's range, or undefined. */
function idOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined;
  const id = Number(text);
  return id <= MAX_ID ? id : undefined;
}

/**
 * Resolves `user[:group]` as docker does: names are looked up; a number that is not in /etc/passwd stands for itself, with group 0.
 * Without a group the user's own applies, and those of /etc/group that name the user.
 * @throws `user_not_found`.
 */
export function resolveUser(wanted: string, accounts: Accounts): ResolvedUser {
  const [user = "", group] = splitUser(wanted);
  const entry = findEntry(fields(accounts.passwd), user);
  const uid = idOf(entry?.[2]) ?? idOf(user);
  if (uid === undefined) throw unknown("user", user, "passwd");
  const home = entry?.[5] ?? "";
  const groups = fields(accounts.group);
  const own = idOf(entry?.[3]) ?? 0;
  if (group !== undefined) {
    const gid = groupId(groups, group);
    return { uid, gid, groups: [gid], home: home === "" ? "/" : home };
  }
  const name = entry?.[0];
  const memberOf = groups
    .filter(([, , , members = ""]) => name !== undefined && members.split(",").includes(name))
    .flatMap(([, , id]) => idOf(id) ?? []);
  const all = [...new Set([own, ...memberOf])].slice(0, MAX_GROUPS);
  return { uid, gid: own, groups: all, home: home === "" ? "/" : home };
}

function splitUser(wanted: string): [string, string | undefined] {
  const colon = wanted.indexOf(":");
  return colon < 0 ? [wanted, undefined] : [wanted.slice(0, colon), wanted.slice(colon + 1)];
}

/** The entry of that name, or else of that number. */
function findEntry(entries: readonly string[][], wanted: string): string[] | undefined {
  const id = idOf(wanted);
  return (
    entries.find(([name]) => name === wanted) ??
    (id === undefined ? undefined : entries.find(([, , number]) => idOf(number) === id))
  );
}

function groupId(groups: readonly string[][], wanted: string): number {
  const gid = idOf(findEntry(groups, wanted)?.[2]) ?? idOf(wanted);
  if (gid === undefined) throw unknown("group", wanted, "group");
  return gid;
}

function unknown(kind: "user" | "group", wanted: string, file: string): MayflyError {
  return new MayflyError(
    "user_not_found",
    `Cannot run as ${kind} ${JSON.stringify(wanted)}: /etc/${file} has no such entry, and it is no number up to ${MAX_ID}`,
  );
}
