/** A snapshot's whole memory as a file of its own, which clones can map: the base's with the snapshot's pages laid over it. */
import { BinaryFile } from "../sys/binary-file.ts";
import { punchHole } from "../sys/libc.ts";
import { copySparse, PAGE_BYTES } from "../sys/memory-file.ts";
import { RUN_WORDS, ZERO_SOURCE } from "../sys/page-set.ts";
import { corrupt } from "./format.ts";
import { openPagesFile } from "./pages.ts";

/**
 * Writes the memory into an existing file, which keeps owner and mode. Holes stay holes, pages that are zero become holes, blocks are shared with
 * the base's file where the file system can.
 * @param target e.g. the memory of a template's workspace, whose publishing makes the checksum.
 * @throws `snapshot_corrupt`, `disk_full`, `cancelled`.
 */
export async function promote(
  baseMemoryPath: string,
  pagesPath: string,
  target: string,
  signal?: AbortSignal,
): Promise<void> {
  await using pages = await openPagesFile(pagesPath);
  await copySparse(baseMemoryPath, target, signal);
  await using file = await BinaryFile.change(target);
  const sizeBytes = await file.sizeBytes();
  if (sizeBytes !== pages.memoryBytes) {
    throw corrupt(pagesPath, `they are of a memory of ${pages.memoryBytes} bytes, the base has ${sizeBytes}`);
  }
  for await (const { runs, memory } of pages.sets()) {
    signal?.throwIfAborted();
    for (let word = 0; word < runs.length; word += RUN_WORDS) {
      const [start = 0, count = 0, source = 0] = [runs[word], runs[word + 1], runs[word + 2]];
      const [at, length] = [start * PAGE_BYTES, count * PAGE_BYTES];
      if (source === ZERO_SOURCE) punchHole(file.fd, at, length, target);
      else await file.write(memory.view(source * PAGE_BYTES, length), at);
    }
  }
  await file.sync();
}
