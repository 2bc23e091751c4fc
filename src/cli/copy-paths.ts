/** The two sides of `mayfly cp`, and where things go by docker's rules. */
import { MayflyError } from "../contract/errors.ts";

/** A side of a copy: a path of a VM, a path of the host, or `-`, a tar stream. */
export type CopySide =
  | { kind: "guest"; vm: string; path: string }
  | { kind: "host"; path: string }
  | { kind: "stream" };

/** Reads `VM:PATH`, `PATH` or `-`. A path that begins with `/` or `.` is the host's, whatever follows. */
export function parseSide(text: string): CopySide {
  if (text === "-") return { kind: "stream" };
  const colon = text.indexOf(":");
  if (colon <= 0 || /^[./]/.test(text) || text.slice(0, colon).includes("/")) return { kind: "host", path: text };
  const path = text.slice(colon + 1);
  return { kind: "guest", vm: text.slice(0, colon), path: path.startsWith("/") ? path : `/${path}` };
}

/** What is known of a target path. */
export type TargetType = "file" | "directory" | "other" | undefined;

/** Last part of a path; `/` and paths that end in `.` or `..` have none. */
export function baseName(path: string): string {
  const name = path.replace(/\/+$/, "").split("/").pop() ?? "";
  return name === "." || name === ".." ? "" : name;
}

/** Whether a source path stands for what is in the directory rather than the directory: it ends in `/.`. */
export function meansContent(path: string): boolean {
  return path === "." || path.endsWith("/.");
}

/**
 * Where a file goes. @throws MayflyError `invalid_argument` when the target names a directory that is not there.
 */
export function fileTarget(source: string, target: string, type: TargetType): string {
  if (type === "directory") return join(target, baseName(source));
  if (type === undefined && target.endsWith("/")) {
    throw new MayflyError("invalid_argument", `Cannot copy ${source} to ${target}: there is no such directory`);
  }
  if (type === "file" && target.endsWith("/")) {
    throw new MayflyError("invalid_argument", `Cannot copy ${source} to ${target}: it is no directory`);
  }
  return target;
}

/** The directory that gets what is in the source directory. @throws MayflyError `invalid_argument` when the target is a file. */
export function directoryTarget(source: string, target: string, type: TargetType): string {
  if (type === "file" || type === "other") {
    throw new MayflyError("invalid_argument", `Cannot copy the directory ${source} to ${target}: it is a file`);
  }
  if (type === undefined || meansContent(source)) return target;
  return join(target, baseName(source));
}

function join(directory: string, name: string): string {
  return `${directory.replace(/\/+$/, "")}/${name}`;
}
