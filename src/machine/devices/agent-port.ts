/** The agent's channel: one port of a virtio-serial device. */
import { busOf, type Device, deviceOption } from "./device.ts";

/** Name of the agent's virtio-serial port, as /sys/class/virtio-ports shows it. */
export const AGENT_PORT = "mayfly.agent";

const DRIVER = "virtio-serial-device";

/** The device. `max_ports`: QEMU makes two queues for each port that there could be. */
export const AGENT_CHANNEL: Device<unknown> = {
  name: "serial",
  driver: DRIVER,
  arguments: ({ agentFd }) => [
    ...deviceOption({ driver: DRIVER, id: "serial", max_ports: 2, bus: busOf("serial") }),
    ...["-chardev", `socket,id=agent,fd=${agentFd},server=on,wait=off`],
    ...deviceOption({ driver: "virtserialport", chardev: "agent", name: AGENT_PORT, bus: "serial.0", nr: 1 }),
  ],
  guest: { modules: ["virtio_mmio", "virtio_console"], feature: "all of it" },
  costBytes: 200_000,
};
