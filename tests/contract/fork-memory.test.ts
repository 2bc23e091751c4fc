/** What a child reads is what its parent's memory was, byte for byte, in every generation: the base with the delta over it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, openSync, readSync } from "node:fs";
import { captureVm } from "../../src/engine/capture.ts";
import type { EngineParts } from "../../src/engine/engine.ts";
import { Gate } from "../../src/engine/gate.ts";
import { readyQemu } from "../../src/engine/revive.ts";
import { reduce } from "../../src/snapshot/reduce.ts";
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

describeVms("memory of forks", () => {
  let vms: TestEngine;
  let parts: EngineParts;

  beforeAll(async () => {
    vms = await TestEngine.open();
    // The test looks where no client does.
    parts = Reflect.get(vms.engine, "parts");
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());

  test(`random writes, forks at random moments, ${GENERATIONS} generations`, async () => {
    const seed = Math.floor(Math.random() * 2 ** 32);
    const random = numbersFrom(seed);
    let last = await vms.start();
    for (let generation = 1; generation <= GENERATIONS; generation++) {
      const until = `/tmp/written${generation}`;
      const script = randomWrites(random, until);
      void vms.exec(last.id, ["/bin/sh", "-c", script]).catch(() => undefined);
      await vms.shell(
        last.id,
        `until [ -e ${until} ]; do usleep 10000; done; usleep ${Math.floor(random() * 100_000)}`,
      );
      const running = parts.vms.running(last.id);
      const template = parts.templates.cloneable(last.templateId);
      const child = await readyQemu({ host: parts.host, gate: new Gate(1), pool: undefined }, template, {}, soon());
      try {
        const compare = async (captured: Parameters<Parameters<typeof captureVm>[2]>[0]) => {
          using state = captured;
          const parent = { pid: last.pid ?? 0, mapping: guestMapping(last.pid ?? 0, template.memoryPath) };
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
      const { vmIds } = await vms.engine.snapshots.fork(last.id, {}, soon());
      await vms.remove(last.id);
      last = vms.engine.getVm(vmIds[0] ?? "");
    }
  }, 240_000);
});
