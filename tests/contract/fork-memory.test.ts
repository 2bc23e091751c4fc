/** What a child reads is what its parent's memory was, byte for byte, in every generation: the base with the delta over it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, openSync, readSync } from "node:fs";
import { captureVm, whileStopped } from "../../src/engine/capture.ts";
import type { EngineParts } from "../../src/engine/engine.ts";
import { Gate } from "../../src/engine/gate.ts";
import { readyQemu } from "../../src/engine/revive.ts";
import { applyPages, openPagesFile } from "../../src/snapshot/pages.ts";
import { reduce } from "../../src/snapshot/reduce.ts";
import { ParentProcess } from "../../src/sys/parent-process.ts";
import { type GuestMapping, guestMapping, writePages } from "../../src/sys/process-memory.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";

const CHUNK_BYTES = 4 << 20;
const GENERATIONS = 5;

/** Numbers from 0 to 1 that a seed decides. */
function numbersFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** What a guest does before it is forked: files in memory written here and there, with zeroes too, copied, and removed. */
function randomWrites(random: () => number, until: string): string {
  const pick = (count: number) => Math.floor(random() * count);
  const steps = Array.from({ length: 6 }, () => {
    const file = `/dev/shm/f${pick(4)}`;
    const source = pick(3) === 0 ? "/dev/zero" : "/dev/urandom";
    const write = `dd if=${source} of=${file} bs=4096 count=${1 + pick(200)} seek=${pick(500)} conv=notrunc 2>/dev/null`;
    return [write, write, `rm -f ${file}`, `cp ${file} /dev/shm/copy 2>/dev/null || true`][pick(4)];
  });
  return `${steps.join("; ")}; echo done > ${until}; while :; do ${steps[0]}; done`;
}

/** Whether two processes' guests have the same memory. @returns the offset of the first difference. */
function firstDifference(a: { pid: number; mapping: GuestMapping }, b: typeof a): number | undefined {
  const fds = [a, b].map(({ pid }) => openSync(`/proc/${pid}/mem`, "r"));
  const buffers = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)] as const;
  try {
    for (let at = 0; at < a.mapping.lengthBytes; at += CHUNK_BYTES) {
      readSync(fds[0] ?? -1, buffers[0], 0, CHUNK_BYTES, a.mapping.start + at);
      readSync(fds[1] ?? -1, buffers[1], 0, CHUNK_BYTES, b.mapping.start + at);
      if (!buffers[0].equals(buffers[1])) return at + buffers[0].findIndex((byte, index) => byte !== buffers[1][index]);
    }
    return undefined;
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** Of all of a guest's memory. */
function sumOf({ pid, mapping }: { pid: number; mapping: GuestMapping }): string {
  const hasher = new Bun.CryptoHasher("sha256");
  const fd = openSync(`/proc/${pid}/mem`, "r");
  const buffer = Buffer.alloc(CHUNK_BYTES);
  for (let at = 0; at < mapping.lengthBytes; at += CHUNK_BYTES) {
    readSync(fd, buffer, 0, CHUNK_BYTES, mapping.start + at);
    hasher.update(buffer);
  }
  closeSync(fd);
  return hasher.digest("hex");
}

describeVms("memory of forks", () => {
  let vms: TestEngine;
  /** One that has neither process images nor parents. */
  let bare: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open({ pool: { blocked: 0, warm: 0, parent: true } });
    bare = await TestEngine.open();
  }, 90_000);
  afterAll(async () => {
    await vms?.[Symbol.asyncDispose]();
    await bare?.[Symbol.asyncDispose]();
  });
  /** The test looks where no client does. */
  const partsOf = ({ engine }: TestEngine): EngineParts => Reflect.get(engine, "parts");

  test("a process' first copy has the same memory, and keeps it while the VM goes on", async () => {
    const random = numbersFrom(Math.floor(Math.random() * 2 ** 32));
    const parts = partsOf(vms);
    const vm = await vms.start({ pool: false });
    const script = randomWrites(random, "/tmp/written");
    void vms.exec(vm.id, ["/bin/sh", "-c", script]).catch(() => undefined);
    await vms.shell(vm.id, "until [ -e /tmp/written ]; do usleep 10000; done");
    const { clone } = parts.vms.running(vm.id);
    const { config, slots } = parts.host;
    const process = ParentProcess.spare(config.artifacts.launcher.path, slots.uids);
    await process.of(clone.qemu.identity);
    const mapping = guestMapping(clone.qemu.pid, clone.template.memoryPath);
    const parent = { pid: clone.qemu.pid, mapping };
    let stem = { ...parent };
    let difference: number | undefined = -1;
    const take = async () => {
      stem = { pid: await process.take(() => undefined), mapping };
      difference = firstDifference(parent, stem);
    };
    await whileStopped(parts.vms.running(vm.id), () => parts.vms.record(vm.id), take, soon());
    expect(difference).toBeUndefined();
    const before = sumOf(stem);
    await vms.shell(vm.id, "dd if=/dev/urandom of=/dev/shm/other bs=4096 count=2000 2>/dev/null");
    expect(firstDifference(parent, stem)).toBeNumber();
    expect(sumOf(stem)).toBe(before);
    process[Symbol.dispose]();
    await process.gone;
    await vms.remove(vm.id);
  });

  test.each([
    ["a process image", { pool: false }, "image"],
    ["a parent", {}, "copy"],
  ] as const)(
    "the process image of a suspended VM has the memory that its snapshot has, of a VM from %s",
    async (_, request, path) => {
      const seed = Math.floor(Math.random() * 2 ** 32);
      const random = numbersFrom(seed);
      const parts = partsOf(vms);
      const vm = await vms.start(request);
      expect(vm.clone.path).toBe(path);
      for (let round = 1; round <= 3; round++) {
        const until = `/tmp/written${round}`;
        void vms.exec(vm.id, ["/bin/sh", "-c", randomWrites(random, until)]).catch(() => undefined);
        await vms.shell(vm.id, `until [ -e ${until} ]; do usleep 10000; done`);
        const { id } = await vms.engine.snapshots.checkpoint(vm.id, { stop: true }, soon());
        const template = parts.templates.cloneable(vm.templateId);
        const loaded = await readyQemu({ host: parts.host, gate: new Gate(1), pool: undefined }, template, {}, soon());
        const image = await parts.suspendedImages.spawn(id, template, {}, false);
        try {
          await image?.qemu.qmp(soon());
          const pid = image?.qemu.pid ?? 0;
          await using pages = await openPagesFile((await parts.snapshots.ready(id)).pagesPath);
          await applyPages(loaded.qemu.pid, loaded.mapping, pages);
          const value = firstDifference(
            { pid, mapping: guestMapping(pid, image?.memoryPath ?? "") },
            { pid: loaded.qemu.pid, mapping: loaded.mapping },
          );
          expect(`seed ${seed}, round ${round}: ${value}`).toBe(`seed ${seed}, round ${round}: undefined`);
        } finally {
          await Promise.all([loaded.qemu.kill(), image?.qemu.kill()]);
        }
        expect((await vms.engine.snapshots.resume(vm.id, soon())).clone.path).toBe("image");
      }
      await vms.remove(vm.id);
    },
    120_000,
  );

  test.each([
    ["its template", {}, "cold"],
    ["a process image", { pool: false }, "image"],
    ["a parent", {}, "copy"],
  ] as const)(
    `random writes, forks at random moments, ${GENERATIONS} generations, of a VM from %s`,
    async (_, request, path) => {
      const seed = Math.floor(Math.random() * 2 ** 32);
      const random = numbersFrom(seed);
      const host = path === "cold" ? bare : vms;
      const parts = partsOf(host);
      let last = await host.start(request);
      expect(last.clone.path).toBe(path);
      for (let generation = 1; generation <= GENERATIONS; generation++) {
        const until = `/tmp/written${generation}`;
        const script = randomWrites(random, until);
        void host.exec(last.id, ["/bin/sh", "-c", script]).catch(() => undefined);
        await host.shell(
          last.id,
          `until [ -e ${until} ]; do usleep 10000; done; usleep ${Math.floor(random() * 100_000)}`,
        );
        const running = parts.vms.running(last.id);
        const template = parts.templates.cloneable(last.templateId);
        const child = await readyQemu({ host: parts.host, gate: new Gate(1), pool: undefined }, template, {}, soon());
        try {
          const compare = async (captured: Parameters<Parameters<typeof captureVm>[2]>[0]) => {
            using state = captured;
            const parent = {
              pid: last.pid ?? 0,
              mapping: guestMapping(last.pid ?? 0, running.clone.template.memoryPath),
            };
            using reduced = await reduce(state.pages, template.memoryPath);
            expect(reduced.pages).toBeLessThanOrEqual(state.pages.pages);
            await writePages(child.qemu.pid, child.mapping, reduced);
            const value = firstDifference(parent, { pid: child.qemu.pid, mapping: child.mapping });
            return { value, goesOn: true };
          };
          const { value } = await captureVm(running, () => parts.vms.record(last.id), compare, soon());
          expect(`seed ${seed}, generation ${generation}: ${value}`).toBe(
            `seed ${seed}, generation ${generation}: undefined`,
          );
        } finally {
          await child.qemu.kill();
        }
        const { vmIds } = await host.engine.snapshots.fork(last.id, {}, soon());
        await host.remove(last.id);
        last = host.engine.getVm(vmIds[0] ?? "");
      }
    },
    240_000,
  );
});
