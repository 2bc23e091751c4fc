/** Tells when a file that is replaced atomically (written beside and renamed) has become another one. */
import { type FSWatcher, statSync, watch } from "node:fs";
import { basename, dirname } from "node:path";

/**
 * Watches a file's directory (inotify(7)) until it is disposed. The process may end meanwhile.
 *
 * @param onChange called after each change; changes that come together are told once.
 * @returns undefined when the directory cannot be watched: it is missing, or the host has no watches left.
 */
export function watchFile(path: string, onChange: () => void): Disposable | undefined {
  const [directory, name] = [dirname(path), basename(path)];
  let known = identityOf(path);
  const look = () => {
    const now = identityOf(path);
    if (now === undefined || now === known) return;
    known = now;
    onChange();
  };
  let watcher: FSWatcher;
  try {
    watcher = watch(directory, { persistent: false }, (_event, changed) => {
      if (changed === null || changed === name) look();
    });
  } catch {
    return undefined;
  }
  watcher.on("error", () => watcher.close());
  return { [Symbol.dispose]: () => watcher.close() };
}

/** What tells one file of this name from the next; undefined when there is none at this moment. */
function identityOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? undefined : `${stat.ino} ${stat.size} ${stat.mtimeMs}`;
}
