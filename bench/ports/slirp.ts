/**
 * The peer: the same QEMU, kernel, initramfs and memory, with QEMU's user-mode network (slirp) for its ports, and the service as the
 * guest's PID 1. Booted, as user-mode networks are; nothing of Mayfly runs in it.
 */
import { closeSync, openSync } from "node:fs";
import type { SystemInfo } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { chooseQemu, cpuModelFor } from "../../src/engine/host.ts";
import { DEFAULT_SHAPE } from "../../src/engine/pools.ts";
import { kernelCommandLine } from "../../src/machine/arguments.ts";
import type { Artifacts } from "../../src/setup/artifacts.ts";
import { collectModules } from "../../src/setup/modules.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { copyPath, makeDirectory, setTimes, treeBelow, writeText } from "../../src/sys/paths.ts";
import { tailOfFile } from "../../src/sys/process.ts";
import { findTool, runTool } from "../../src/sys/tool.ts";
import { measureTscKHz } from "../../src/sys/tsc.ts";
import { firstAnswer, freePort } from "../app/first-http.ts";
import { GUEST_PORTS, type HostPorts, serviceCommand } from "./service.ts";

const BOOT_LIMIT_MS = 60_000;
const LOG_TAIL_BYTES = 2000;

/** Where it is made, and of what. */
export interface SlirpOptions {
  /** An empty directory. */
  directory: string;
  artifacts: Artifacts;
  accelerator: SystemInfo["accelerator"];
  /** The service's program. */
  program: string;
  signal: AbortSignal;
}

/** A running one; disposing it ends it. */
export interface SlirpGuest extends AsyncDisposable {
  readonly pid: number;
  readonly ports: HostPorts;
}

/** Boots it, and waits until the service answers. @throws MayflyError `boot_failed` with the end of QEMU's and the guest's words. */
export async function bootSlirp(options: SlirpOptions): Promise<SlirpGuest> {
  const { directory, signal } = options;
  const initramfs = await initramfsWith(options);
  const ports = { http: freePort(), bytes: freePort() };
  const logPath = `${directory}/qemu.log`;
  const command = await qemuCommand(options, initramfs, ports);
  const log = openSync(logPath, "a", 0o600);
  // It goes with us, however we end.
  const setpriv = findTool("setpriv") ?? "setpriv";
  const child = Bun.spawn([setpriv, "--pdeathsig", "KILL", "--", ...command], { stdio: ["ignore", log, log] });
  closeSync(log);
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  const failed = new AbortController();
  child.exited.then(() => failed.abort());
  try {
    await firstAnswer(ports.http, Deadline.after(BOOT_LIMIT_MS, AbortSignal.any([signal, failed.signal])));
  } catch (cause) {
    if (signal.aborted) throw cause;
    const stderrTail = tailOfFile(logPath, LOG_TAIL_BYTES);
    throw new MayflyError("boot_failed", `The guest with QEMU's user-mode network gave no answer: ${stderrTail}`, {
      details: { stderrTail },
      cause,
    });
  }
  const resources = cleanup.move();
  return { pid: child.pid, ports, [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

/** Mayfly's initramfs with the service, a network driver, and an init of its own behind it: archives may follow each other. */
async function initramfsWith({ directory, artifacts, program, signal }: SlirpOptions): Promise<string> {
  const root = `${directory}/initramfs`;
  const kernelDirectory = artifacts.kernel.path.slice(0, artifacts.kernel.path.lastIndexOf("/"));
  await makeDirectory(`${root}/bench`);
  await copyPath(program, `${root}/bench/server`);
  const wanted = [{ path: "drivers/net/virtio_net.ko", isOptional: false }];
  const modules = await collectModules(`${kernelDirectory}/modules`, wanted, `${root}/bench`);
  await writeText(`${root}/bench/init`, init(modules), 0o755);
  await setTimes((await treeBelow(root)).map((name) => `${root}/${name}`));
  const [own, whole] = [`${directory}/own.cpio`, `${directory}/initramfs.cpio`];
  const names = Buffer.from((await treeBelow(root)).map((name) => `${name}\0`).join(""));
  const pack = ["cpio", "-o", "-0", "-H", "newc", "--owner=+0:+0", "--quiet", "-F", own];
  await runTool(pack, { cwd: root, input: names, signal });
  await runTool(["cat", artifacts.initramfs.path, own], { outputPath: whole, signal });
  return whole;
}

/** What the agent does for Mayfly's guests as far as it matters here, and slirp's own addresses. */
function init(modules: readonly string[]): string {
  return `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
for module in $(cat /lib/modules.list) ${modules.map((name) => `/bench/${name}`).join(" ")}; do insmod $module 2>/dev/null; done
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
route add default gw 10.0.2.2
exec ${serviceCommand("/bench/server").join(" ")}
`;
}

async function qemuCommand(
  { artifacts, accelerator }: SlirpOptions,
  initramfs: string,
  ports: HostPorts,
): Promise<string[]> {
  // The user-mode network is not in the smaller program that KVM guests have.
  const qemu = chooseQemu(artifacts.qemu, "tcg");
  if (qemu === undefined) throw new MayflyError("qemu_not_found", "There is no QEMU with a user-mode network");
  const forwards = [GUEST_PORTS.http, GUEST_PORTS.bytes].map((guestPort, index) => {
    const hostPort = index === 0 ? ports.http : ports.bytes;
    return `hostfwd=tcp:127.0.0.1:${hostPort}-:${guestPort}`;
  });
  const tcg = accelerator === "tcg";
  const machine = [
    "microvm",
    "pcie=off",
    "usb=off",
    "isa-serial=on",
    ...(tcg ? [] : ["pit=off", "pic=off", "rtc=off"]),
  ];
  const { memoryMiB, vcpus } = DEFAULT_SHAPE;
  return [
    qemu.path,
    ...qemu.firmwarePaths.flatMap((path) => ["-L", path]),
    ...["-M", machine.join(","), "-accel", tcg ? "tcg,tb-size=64" : "kvm", "-cpu", cpuModelFor(accelerator)],
    ...["-smp", String(vcpus), "-m", String(memoryMiB)],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
    ...["-netdev", `user,id=net,${forwards.join(",")}`, "-device", "virtio-net-device,netdev=net"],
    ...["-kernel", artifacts.kernel.path, "-initrd", initramfs],
    ...["-append", `${kernelCommandLine(accelerator, await measureTscKHz())} rdinit=/bench/init`],
  ];
}
