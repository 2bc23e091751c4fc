/** A fork has the memory that its parent had: every byte of it, at any moment, in every generation. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, openSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import type { Clone } from "../../src/engine/clone.ts";
import { Gate } from "../../src/engine/gate.ts";
import { newIdentity } from "../../src/engine/identity.ts";
import { readyQemu, revive } from "../../src/engine/revive.ts";
import { StageClock } from "../../src/engine/stages.ts";
import { applyPages, openPagesFile, writePagesFile } from "../../src/snapshot/pages.ts";
import { reduce } from "../../src/snapshot/reduce.ts";
import { pause, realtimeNs } from "../../src/sys/deadline.ts";
import { grantFile, newSparseFile, readRange } from "../../src/sys/disk-files.ts";
import type { PageSet } from "../../src/sys/page-set.ts";
import { type GuestMapping, guestMapping, MemoryCapture, writePages } from "../../src/sys/process-memory.ts";
import { type LoadedTemplate, TemplateStore } from "../../src/template/store.ts";
import { DiskClone, DiskHost } from "../support/disk-clones.ts";
import { soon } from "../support/engine.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";

const DEPTH = 5;

/** Writes random and zero pages, frees some, until it is told to stop; a line for each round. */
const WRITER = `rm -f /m/stop; i=0
while [ ! -e /m/stop ]; do
  i=$((i+1))
  dd if=/dev/urandom of=/m/f$((i%5)) bs=16k count=$((i*SEED%37)) 2>/dev/null
  dd if=/dev/zero of=/m/f$((i%3)) bs=16k count=$((i*SEED%29)) conv=notrunc 2>/dev/null
  [ $((i%4)) != 0 ] || rm -f /m/f$((i*SEED%5))
  echo $i
done`;

/** When a generation is forked, and by which way its pages go into the child. */
const generation = fc.record({
  lines: fc.integer({ min: 1, max: 4 }),
  laterMs: fc.nat({ max: 40 }),
  seed: fc.integer({ min: 1, max: 1000 }),
  way: fc.constantFrom("as captured", "reduced", "by a file"),
});
type Generation = typeof generation extends fc.Arbitrary<infer T> ? T : never;

describeVms("guest memory", () => {
  let host: DiskHost;
  let template: LoadedTemplate;
  let directory: string;
  beforeAll(async () => {
    host = await DiskHost.open();
    directory = newDirectory("pages");
    const store = new TemplateStore(host.stateDir);
    const [id = ""] = await store.list();
    template = await store.load(id);
  });
  afterAll(() => host[Symbol.dispose]());

  test("is the parent's in each child, whatever it was doing, five generations deep", async () => {
    const generations = fc.array(generation, { minLength: DEPTH, maxLength: DEPTH });
    await fc.assert(
      fc.asyncProperty(generations, async (all) => {
        let vm = await host.start();
        try {
          for (const each of all) {
            const child = await fork(vm, each);
            await vm[Symbol.asyncDispose]();
            vm = child;
            // The writer has come along and goes on until it sees this.
            expect(await vm.shell("touch /m/stop; echo on")).toBe("on");
          }
        } finally {
          await vm[Symbol.asyncDispose]();
        }
      }),
      { numRuns: 1, endOnFailure: true },
    );
  }, 300_000);

  /** Forks a VM while it writes. Its child's memory is compared with its own before the child has run. */
  async function fork(parent: DiskClone, { lines, laterMs, seed, way }: Generation): Promise<DiskClone> {
    const { qemu, agent } = parent.clone;
    await writing(parent.clone, seed, lines);
    await pause(laterMs);
    const others = agent.lasting();
    const ready = await readyQemu({ host: host.host, gate: new Gate(1), pool: undefined }, template, {}, soon());
    const devicesPath = join(qemu.slot.directory, "devices");
    newSparseFile(devicesPath, 0, []);
    grantFile(devicesPath, qemu.slot.uid);
    const mapping = guestMapping(qemu.pid, template.memoryPath);
    using capture = await MemoryCapture.prepare(qemu.pid, mapping);
    const qmp = await qemu.qmp(soon());
    await agent.freeze(soon());
    await qmp.execute("stop", undefined, soon());
    await qmp.execute("xen-save-devices-state", { filename: devicesPath, live: false }, soon());
    using pages = await capture.take();
    const memory = memoryOf(qemu.pid, mapping);
    const devices = readRange(devicesPath, 0, 1 << 20);
    rmSync(devicesPath);
    await qmp.execute("cont", undefined, soon());
    await agent.goOn(realtimeNs(), soon());
    const write = async (pid: number, into: GuestMapping) => {
      await writeBy(way, pages, pid, into);
      expect(Buffer.compare(memoryOf(pid, into), memory)).toBe(0);
    };
    const state = { devices, writePages: write, main: null, others };
    const child = await revive(ready, template, state, setup(), new StageClock(performance.now()), soon());
    return new DiskClone(child);
  }

  async function writeBy(way: Generation["way"], pages: PageSet, pid: number, into: GuestMapping): Promise<void> {
    if (way === "as captured") return writePages(pid, into, pages);
    using reduced = await reduce(pages, template.memoryPath);
    expect(reduced.pages).toBeLessThanOrEqual(pages.pages);
    if (way === "reduced") return writePages(pid, into, reduced);
    const path = join(directory, "pages");
    rmSync(path, { force: true });
    await writePagesFile(path, reduced);
    await using file = await openPagesFile(path);
    await applyPages(pid, into, file);
  }
});

/** Has the guest write, and waits for so many lines of it. */
async function writing({ agent }: Clone, seed: number, lines: number): Promise<void> {
  let seen = 0;
  const enough = Promise.withResolvers<void>();
  const spec = { argv: ["/bin/sh", "-c", WRITER], env: ["PATH=/bin:/sbin:/usr/bin:/usr/sbin", `SEED=${seed}`] };
  agent.exec(
    spec,
    (_channel, chunk) => {
      seen += Buffer.from(chunk).toString().split("\n").length - 1;
      if (seen >= lines) enough.resolve();
    },
    soon(),
  );
  await soon().race(enough.promise, "lines of the guest's writer");
}

function setup() {
  const identity = newIdentity("child");
  return { identity, container: undefined, limits: undefined, files: [], fills: [], hooks: undefined, disks: {} };
}

/** The whole memory of a guest, as its QEMU's memory file in /proc has it. */
function memoryOf(pid: number, { start, lengthBytes }: GuestMapping): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  const fd = openSync(`/proc/${pid}/mem`, "r");
  try {
    for (let done = 0; done < lengthBytes; ) done += readSync(fd, bytes, done, lengthBytes - done, start + done);
    return bytes;
  } finally {
    closeSync(fd);
  }
}
