/** Disk space as it is taken. */
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";

/** Bytes allocated for a file; 0 when it is missing. */
export async function allocatedBytesOf(path: string): Promise<number> {
  return lstat(path).then(
    (stat) => stat.blocks * 512,
    () => 0,
  );
}

/** Bytes allocated for everything below a directory; 0 when it is missing. */
export async function allocatedBytesBelow(directory: string): Promise<number> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  let bytes = 0;
  for (const entry of entries) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) bytes += await allocatedBytesBelow(path);
    else bytes += await allocatedBytesOf(path);
  }
  return bytes;
}
