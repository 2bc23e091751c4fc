/** Memory that VMs and snapshots have in common with their templates: what a template has that was not copied. */
import type { Snapshot, TreeNode, Vm } from "../contract/api.ts";
import { openPagesFile } from "../snapshot/pages.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import { dataRuns, pagesOutside } from "../sys/data-runs.ts";
import { PAGE_BYTES } from "../sys/memory-file.ts";
import { RUN_WORDS } from "../sys/page-set.ts";
import { copiedPages } from "../sys/pagemap.ts";
import { guestMapping } from "../sys/process-memory.ts";
import type { LoadedTemplate } from "../template/store.ts";
import type { EngineParts } from "./engine.ts";

/** What a node of the tree says of its memory. */
export type MemoryShare = Pick<TreeNode, "sharedBytes" | "uniqueBytes">;

type Memory = Pick<LoadedTemplate, "memoryPath">;

/** Looks at memory for the tree. */
export class SharedMemory {
  /** Runs of a template's pages that are no holes: a template does not change. */
  readonly #data = new WeakMap<Memory, Uint32Array>();

  constructor(
    private readonly vms: Pick<EngineParts["vms"], "runningOf">,
    private readonly templates: Pick<EngineParts["templates"], "usable">,
    private readonly store: SnapshotStore,
  ) {}

  /** Of a VM; nulls for one without a QEMU, or whose QEMU may not be looked at. */
  ofVm({ id }: Pick<Vm, "id">): MemoryShare {
    const clone = this.vms.runningOf(id)?.clone;
    if (clone === undefined) return NONE;
    const { qemu, template } = clone;
    try {
      const { start, lengthBytes } = guestMapping(qemu.pid, template.memoryPath);
      const copied = copiedPages(qemu.pid, start, lengthBytes);
      return { sharedBytes: this.#shared(template, copied), uniqueBytes: pagesIn(copied) * PAGE_BYTES };
    } catch {
      return NONE;
    }
  }

  /** Of a snapshot, whose unique bytes are those on the disk. */
  async ofSnapshot({ id, templateId, sizeBytes }: Snapshot): Promise<MemoryShare> {
    const template = this.templates.usable(templateId);
    if (template === undefined) return { sharedBytes: null, uniqueBytes: sizeBytes };
    try {
      await using file = await openPagesFile(`${this.store.directory(id)}/pages`);
      return { sharedBytes: this.#shared(template, file.table.runs), uniqueBytes: sizeBytes };
    } catch {
      return { sharedBytes: null, uniqueBytes: sizeBytes };
    }
  }

  #shared(template: Memory, copied: Uint32Array): number {
    const data = this.#data.get(template) ?? dataRuns(template.memoryPath);
    this.#data.set(template, data);
    return pagesOutside(data, copied) * PAGE_BYTES;
  }
}

const NONE: MemoryShare = { sharedBytes: null, uniqueBytes: null };

function pagesIn(runs: Uint32Array): number {
  let pages = 0;
  for (let at = 1; at < runs.length; at += RUN_WORDS) pages += runs[at] ?? 0;
  return pages;
}
