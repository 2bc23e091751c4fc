/** Shapes of templates: rounding of what a user asks for. */
import { MayflyError } from "../contract/errors.ts";
import { SHAPE_MEMORY_MIB, SHAPE_VCPUS, type Shape } from "../contract/machine.ts";

/**
 * Smallest memory that a VM can have, in MiB. Measured with Debian's cloud kernel 6.1 and one or two vCPUs: up to 72 MiB it does
 * not boot, at 80 the first commands are killed for want of memory, at 88 they run with 7 MiB to spare, at 96 with 16.
 */
export const MINIMUM_MEMORY_MIB = 96;

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
