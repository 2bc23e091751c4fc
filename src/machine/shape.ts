/** Shapes of templates: rounding of what a user asks for. */
import { MayflyError } from "../contract/errors.ts";
import { SHAPE_MEMORY_MIB, SHAPE_VCPUS, type Shape } from "../contract/machine.ts";

/** Smallest memory at which the guest boots and a clone runs a command, in MiB; `docs/PERFORMANCE.md` has the measurement. */
export const MINIMUM_MEMORY_MIB = 128;

/** What a VM is asked to have. */
export interface ShapeRequest {
  memoryBytes: number;
  cpus: number;
}

/**
 * Rounds a request up to a template's shape.
 * @param hostMemoryBytes memory of the host, which a VM may not exceed.
 * @throws `memory_too_small`, `memory_exceeds_host`, `invalid_argument`; each names both values.
 */
export function shapeFor(request: ShapeRequest, hostMemoryBytes: number): Shape {
  const askedMiB = Math.ceil(request.memoryBytes / 2 ** 20);
  if (askedMiB < MINIMUM_MEMORY_MIB) {
    throw new MayflyError(
      "memory_too_small",
      `Cannot start a VM with ${askedMiB} MiB of memory: the guest kernel needs at least ${MINIMUM_MEMORY_MIB} MiB`,
    );
  }
  const memoryMiB = SHAPE_MEMORY_MIB.find((size) => size >= askedMiB);
  if (memoryMiB === undefined) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot start a VM with ${askedMiB} MiB of memory: the largest shape has ${SHAPE_MEMORY_MIB.at(-1)} MiB`,
    );
  }
  if (askedMiB * 2 ** 20 > hostMemoryBytes) {
    throw new MayflyError(
      "memory_exceeds_host",
      `Cannot start a VM with ${askedMiB} MiB of memory: the host has ${Math.floor(hostMemoryBytes / 2 ** 20)} MiB`,
    );
  }
  const vcpus = SHAPE_VCPUS.find((count) => count >= request.cpus);
  if (vcpus === undefined || request.cpus <= 0) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot start a VM with ${request.cpus} CPUs: from above 0 to ${SHAPE_VCPUS.at(-1)} are possible`,
    );
  }
  return { memoryMiB, vcpus };
}
