/** How far a program is that writes files: for progress, told by the kernel and not by looking again and again. */
import { type FSWatcher, readdirSync, statSync, watch } from "node:fs";
import { join } from "node:path";

/** Files at work lie in `parts` (directories there do not count), finished ones in `finished`; those that are there already are not counted. */
export interface GrowingDirectories {
  parts: string;
  finished: string;
}

/** Reports come no more often than this. */
const INTERVAL_MS = 200;

/**
 * Tells how many files have been finished, and how many bytes there are of finished ones and of those at work, whenever that changes.
 * Disposing it ends it.
 */
export function watchGrowth(
  { parts, finished }: GrowingDirectories,
  report: (growth: { files: number; bytes: number }) => void,
): Disposable {
  const before = new Set(namesIn(finished));
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = () => {
    timer = undefined;
    const done = namesIn(finished).filter((name) => !before.has(name));
    const paths = [...done.map((name) => join(finished, name)), ...namesIn(parts).map((name) => join(parts, name))];
    report({ files: done.length, bytes: paths.reduce((sum, path) => sum + sizeOf(path), 0) });
  };
  const changed = () => {
    timer ??= setTimeout(look, INTERVAL_MS);
  };
  const watchers: FSWatcher[] = [parts, finished].map((path) => watch(path, changed).on("error", () => undefined));
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      for (const watcher of watchers) watcher.close();
    },
  };
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function sizeOf(path: string): number {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat?.isFile() ? stat.size : 0;
}
