/** A network card without a host side yet: VMs have no network of their own. */
import { busOf, type Device, deviceOption } from "./device.ts";

const DRIVER = "virtio-net-device";

/** The device. */
export const NETWORK: Device<unknown> = {
  name: "network",
  driver: DRIVER,
  arguments: () => [
    ...["-netdev", JSON.stringify({ type: "hubport", id: "net", hubid: 0 })],
    ...deviceOption({ driver: DRIVER, id: "nic", netdev: "net", bus: busOf("network") }),
  ],
  guest: { modules: ["virtio_mmio", "virtio_net"], feature: "the MAC address of an identity" },
  costBytes: 190_000,
};
