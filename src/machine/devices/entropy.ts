/** A source of random numbers besides what an identity brings. */
import { busOf, type Device, deviceOption } from "./device.ts";

const DRIVER = "virtio-rng-device";

/** The device. */
export const ENTROPY: Device<unknown> = {
  name: "entropy",
  driver: DRIVER,
  arguments: () => [
    ...["-object", JSON.stringify({ "qom-type": "rng-builtin", id: "entropy" })],
    ...deviceOption({ driver: DRIVER, id: "rng", rng: "entropy", bus: busOf("entropy") }),
  ],
  guest: { modules: ["virtio_mmio", "virtio_rng"], feature: "none: the kernel is seeded by the identity" },
  costBytes: 190_000,
};
