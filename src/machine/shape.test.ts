import { expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { SHAPE_MEMORY_MIB, SHAPE_VCPUS } from "../contract/machine.ts";
import { MINIMUM_MEMORY_MIB, shapeFor } from "./shape.ts";

const MIB = 2 ** 20;
const HOST = 64 * 1024 * MIB;

function refusal(memoryBytes: number, cpus: number, hostBytes = HOST): { code: string; message: string } {
  try {
    const shape = shapeFor({ memoryBytes, cpus }, hostBytes);
    return { code: "none", message: JSON.stringify(shape) };
  } catch (error) {
    if (!(error instanceof MayflyError)) throw error;
    return { code: error.code, message: error.message };
  }
}

test("a request is rounded up to a shape", () => {
  const shape = (mebibytes: number, cpus: number) => shapeFor({ memoryBytes: mebibytes * MIB, cpus }, HOST);
  expect(shape(MINIMUM_MEMORY_MIB, 0.1)).toEqual({ memoryMiB: MINIMUM_MEMORY_MIB, vcpus: 1 });
  expect(shape(128, 1)).toEqual({ memoryMiB: 128, vcpus: 1 });
  expect(shape(129, 1.5)).toEqual({ memoryMiB: 256, vcpus: 2 });
  expect(shape(5000, 3)).toEqual({ memoryMiB: 8192, vcpus: 4 });
  expect(shape(8192, 8)).toEqual({ memoryMiB: 8192, vcpus: 8 });
});

test("what cannot be is refused with both values", () => {
  expect(refusal((MINIMUM_MEMORY_MIB - 1) * MIB, 1)).toMatchObject({ code: "memory_too_small" });
  expect(refusal(10 * MIB, 1).message).toMatch(new RegExp(`10 MiB.*${MINIMUM_MEMORY_MIB} MiB`));
  const beyondHost = refusal(4096 * MIB, 1, 2000 * MIB);
  expect(beyondHost.code).toBe("memory_exceeds_host");
  expect(beyondHost.message).toMatch(/4096 MiB.*2000 MiB/);
  expect(refusal(8193 * MIB, 1).code).toBe("invalid_argument");
  expect(refusal(128 * MIB, 8.5).message).toMatch(/8\.5 CPUs.*8/);
  expect(refusal(128 * MIB, 0).code).toBe("invalid_argument");
  expect(refusal(128 * MIB, -1).code).toBe("invalid_argument");
});

test("whatever is asked for gives a shape that holds it, or a typed refusal", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2 ** 34 }),
      fc.double({ min: -1, max: 20, noNaN: true }),
      (memoryBytes, cpus) => {
        const { code, message } = refusal(memoryBytes, cpus);
        if (code !== "none") return;
        const { memoryMiB, vcpus } = JSON.parse(message);
        expect(memoryMiB * MIB).toBeGreaterThanOrEqual(memoryBytes);
        expect(vcpus).toBeGreaterThanOrEqual(cpus);
        expect(SHAPE_MEMORY_MIB).toContain(memoryMiB);
        expect(SHAPE_VCPUS).toContain(vcpus);
      },
    ),
  );
});
