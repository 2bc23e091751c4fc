import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { QemuBinary } from "../contract/machine.ts";
import { escapeOption, kernelCommandLine, type QemuDescription, qemuArguments } from "./arguments.ts";

const qemu: QemuBinary = {
  path: "/opt/qemu",
  version: "10.0.2",
  firmwarePaths: ["/opt/share/qemu", "/opt/share/seabios"],
  kind: "full",
  sizeBytes: 1,
  mtimeMs: 1,
};
const clone: QemuDescription = {
  qemu,
  accelerator: "tcg",
  cpuModel: "max",
  shape: { memoryMiB: 128, vcpus: 1 },
  memoryPath: "/state/templates/a,b/memory",
  memoryMode: "private-read-only",
  qmpFd: 3,
  agentFd: 4,
  incomingFd: 5,
  disks: {},
};

/** The devices of all VMs, in order; `nodes` are those below a slot's own, of slots that are in use. */
function devices(nodes: Readonly<Record<string, string[]>> = {}): string[] {
  const disk = (slot: string, bus: number, readOnly: boolean) => {
    const none = `{"driver":"null-co","node-name":"${slot}-none","size":1099511627776,"read-only":${readOnly}}`;
    const below = nodes[slot] ?? [none];
    const lowest: { "node-name": string } = JSON.parse(below.at(-1) ?? "");
    const discard = readOnly ? "" : ',"discard":"unmap"';
    return [
      ...below.flatMap((node) => ["-blockdev", node]),
      "-blockdev",
      `{"driver":"raw","node-name":"${slot}","file":"${lowest["node-name"]}","read-only":${readOnly}${discard}}`,
      "-device",
      `{"driver":"virtio-blk-device","id":"disk-${slot}","drive":"${slot}","bus":"virtio-mmio-bus.${bus}","num-queues":1,"queue-size":64,"serial":"${slot}","werror":"report","rerror":"report"}`,
    ];
  };
  return [
    ...["-device", '{"driver":"virtio-serial-device","id":"serial","max_ports":2,"bus":"virtio-mmio-bus.7"}'],
    ...["-chardev", "socket,id=agent,fd=4,server=on,wait=off"],
    "-device",
    '{"driver":"virtserialport","chardev":"agent","name":"mayfly.agent","bus":"serial.0","nr":1}',
    ...["-netdev", '{"type":"hubport","id":"net","hubid":0}'],
    ...["-device", '{"driver":"virtio-net-device","id":"nic","netdev":"net","bus":"virtio-mmio-bus.1"}'],
    ...["-object", '{"qom-type":"rng-builtin","id":"entropy"}'],
    ...["-device", '{"driver":"virtio-rng-device","id":"rng","rng":"entropy","bus":"virtio-mmio-bus.0"}'],
    ...disk("root", 6, true),
    ...disk("scratch", 5, false),
    ...disk("volume0", 4, false),
    ...disk("volume1", 3, false),
    ...disk("volume2", 2, false),
  ];
}

const common = {
  firmware: ["-L", "/opt/share/qemu", "-L", "/opt/share/seabios"],
  fixed: ["-global", "migration.send-configuration=off", "-nodefaults", "-no-user-config", "-display", "none"],
  qmp: ["-chardev", "socket,id=qmp,fd=3,server=on,wait=off", "-mon", "chardev=qmp,mode=control"],
  ring: ["-chardev", "ringbuf,id=console,size=65536", "-serial", "chardev:console"],
};
const memory = (size: number, mode: string) =>
  `{"qom-type":"memory-backend-file","id":"memory","size":${size},"mem-path":"/state/templates/a,b/memory",${mode}}`;

describe("QEMU's arguments", () => {
  test("for a clone under TCG", () => {
    expect(qemuArguments(clone)).toEqual([
      ...common.firmware,
      ...[
        "-M",
        "microvm,memory-backend=memory,suppress-vmdesc=on,pcie=off,usb=off,isa-serial=on,mem-merge=off,ioapic2=off,pit=off",
      ],
      ...["-accel", "tcg,tb-size=64", "-cpu", "max", "-smp", "1", "-m", "128"],
      ...[...common.fixed, "-no-reboot"],
      ...["-object", memory(128 << 20, '"share":false,"readonly":true,"rom":"off"')],
      ...common.qmp,
      ...common.ring,
      ...devices(),
      ...["-incoming", "fd:5"],
    ]);
  });

  test("for a clone under KVM, with an open /dev/kvm", () => {
    const description: QemuDescription = {
      ...{ ...clone, accelerator: "kvm", cpuModel: "host", shape: { memoryMiB: 512, vcpus: 2 }, kvmFd: 6 },
      disks: {
        root: { path: "/state/images/x,y/rootfs.erofs", format: "raw", readOnly: true },
        scratch: { path: "/s", format: "qcow2", basePath: "/b", readOnly: false },
        volume1: { path: "/v", format: "raw", readOnly: false },
      },
    };
    expect(qemuArguments(description)).toEqual([
      ...common.firmware,
      "-M",
      "microvm,memory-backend=memory,suppress-vmdesc=on,pcie=off,usb=off,isa-serial=on,mem-merge=off,ioapic2=off,pit=off,pic=off,rtc=off",
      ...["-add-fd", "fd=6,set=1", "-accel", "kvm,device=/dev/fdset/1", "-cpu", "host", "-smp", "2", "-m", "512"],
      ...[...common.fixed, "-no-reboot"],
      ...["-object", memory(512 << 20, '"share":false,"readonly":true,"rom":"off"')],
      ...common.qmp,
      ...common.ring,
      ...devices({
        root: [
          '{"driver":"file","node-name":"root-file","filename":"/state/images/x,y/rootfs.erofs","read-only":true,"locking":"off"}',
        ],
        scratch: [
          '{"driver":"file","node-name":"scratch-file","filename":"/s","read-only":false,"discard":"unmap","cache":{"no-flush":true}}',
          '{"driver":"file","node-name":"scratch-base","filename":"/b","read-only":true,"locking":"off"}',
          '{"driver":"qcow2","node-name":"scratch-overlay","file":"scratch-file","discard":"unmap","backing":"scratch-base"}',
        ],
        volume1: ['{"driver":"file","node-name":"volume1-file","filename":"/v","read-only":false,"discard":"unmap"}'],
      }),
      ...["-incoming", "fd:5"],
    ]);
  });

  test("for a parent that boots", () => {
    const boot = { kernelPath: "/k", initramfsPath: "/i", commandLine: "console=ttyS0 a,b" };
    const { incomingFd: _none, ...booting } = clone;
    const found = qemuArguments({ ...booting, memoryMode: "shared", boot, consolePath: "/state/a,b/console.log" });
    expect(found).toContain(memory(128 << 20, '"share":true'));
    expect(found.join(" ")).toContain("-chardev file,id=console,path=/state/a,,b/console.log -serial chardev:console");
    expect(found.slice(-6)).toEqual(["-kernel", "/k", "-initrd", "/i", "-append", "console=ttyS0 a,b"]);
    expect(found).not.toContain("-incoming");
  });

  test("map memory of an old QEMU privately without more", () => {
    expect(qemuArguments({ ...clone, memoryMode: "private" })).toContain(memory(128 << 20, '"share":false'));
  });

  test("of a parent and of its clones name the same machine and devices", () => {
    const { incomingFd: _none, ...booting } = clone;
    const boot = { kernelPath: "/k", initramfsPath: "/i", commandLine: "c" };
    const machine = (list: string[]) =>
      list.filter((_, index) => ["-M", "-device", "-cpu"].includes(list[index - 1] ?? ""));
    expect(machine(qemuArguments({ ...booting, boot, memoryMode: "shared" }))).toEqual(machine(qemuArguments(clone)));
  });
});

test("a value with commas survives QEMU's reading of options", () => {
  // As qemu's util/qemu-option.c reads: a comma ends the value, two of them are one.
  const read = (option: string): string[] => {
    const values = [""];
    for (let at = 0; at < option.length; at++) {
      if (option[at] === "," && option[at + 1] === ",") at += 1;
      else if (option[at] === ",") {
        values.push("");
        continue;
      }
      values.push(`${values.pop()}${option[at]}`);
    }
    return values;
  };
  fc.assert(
    fc.property(fc.array(fc.string({ unit: fc.constantFrom("a", ",", "=", " ", "/") }), { minLength: 1 }), (values) => {
      // An empty value before another would run its comma into the next one's: options begin with their name.
      const named = values.map((value) => `k=${value}`);
      expect(read(named.map(escapeOption).join(","))).toEqual(named);
    }),
  );
});

test("the kernel's command line depends on the accelerator, and under TCG on the host's counter", () => {
  expect(kernelCommandLine("tcg", 2_596_100)).toContain(" tsc_early_khz=2596100 ");
  expect(kernelCommandLine("kvm", 2_596_100)).not.toContain("tsc_early_khz");
  for (const line of [kernelCommandLine("tcg", 1), kernelCommandLine("kvm", 1)]) {
    expect(line).toContain("console=ttyS0 ");
    expect(line).toContain(" panic=-1 ");
  }
});
