# What a lean QEMU has of QEMU's devices, in the language of its configs/devices: the machine that Mayfly's argument vector names
# (src/machine/arguments.ts) and the virtio devices in its slots (src/machine/profile.ts). The machine brings its interrupt
# controllers, clocks and serial port with it.

# The machine type.
CONFIG_MICROVM=y

# The agent's channel.
CONFIG_VIRTIO_SERIAL=y
# Root, scratch and volumes.
CONFIG_VIRTIO_BLK=y
# The network.
CONFIG_VIRTIO_NET=y
# Random numbers for the guest.
CONFIG_VIRTIO_RNG=y
