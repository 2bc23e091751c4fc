/**
 * VMs with memory of their own, as QEMU has it without Mayfly: the same QEMU, machine, kernel, initramfs and agent, booted, with one qcow2 file that
 * takes QEMU's snapshots. Its command line has the kernel also where a saved state is loaded, as QEMU's documentation wants it the same.
 */
import { AgentClient } from "../../src/agent/client.ts";
import type { Shape } from "../../src/contract/machine.ts";
import { TRIM_BYTES } from "../../src/engine/build.ts";
import { type Host, planFor } from "../../src/engine/host.ts";
import { identityRequest, newIdentity } from "../../src/engine/identity.ts";
import { QemuProcess } from "../../src/engine/qemu-process.ts";
import { kernelCommandLine } from "../../src/machine/arguments.ts";
import type { Deadline } from "../../src/sys/deadline.ts";

/** A QEMU process and its guest's agent; disposing it ends it. */
export interface PlainVm extends AsyncDisposable {
  readonly qemu: QemuProcess;
  readonly agent: AgentClient;
}

/**
 * Starts a QEMU on memory of its own.
 * @param more arguments besides: where a state comes from. Without any it boots.
 * @param deadline for the agent's answer, which the caller waits for.
 */
export function startPlainVm(host: Host, shape: Shape, more: readonly string[], deadline: Deadline): PlainVm {
  const { kernel, initramfs } = host.config.artifacts;
  const commandLine = kernelCommandLine(host.accelerator, host.tscKHz);
  const boot = { kernelPath: kernel.path, initramfsPath: initramfs.path, commandLine };
  const qemu = QemuProcess.spawn(host.slots, host.records, (slot) => {
    const plan = planFor(host, slot, { shape, memoryPath: "/", memoryMode: "shared", disks: {}, boot });
    return { ...plan, command: [...plan.command.map((word) => ownMemory(word, shape)), ...more] };
  });
  qemu.dropStateSocket();
  const agent = AgentClient.open(qemu.slot.agentPath, { deadline });
  agent.ready.catch(() => undefined);
  return { qemu, agent, [Symbol.asyncDispose]: () => qemu.kill() };
}

/** Boots one, gives it an identity, and has it fill what is free with zeroes, as in a template. @throws what QEMU or the guest does wrong. */
export async function bootPlainVm(host: Host, shape: Shape, deadline: Deadline): Promise<PlainVm> {
  const vm = startPlainVm(host, shape, [], deadline);
  try {
    await vm.qemu.untilExit(vm.agent.ready, "booting");
    await vm.agent.identity(identityRequest(newIdentity("plain")), deadline);
    await vm.agent.sync(deadline);
    await vm.agent.trim(TRIM_BYTES, deadline);
    return vm;
  } catch (error) {
    await vm.qemu.kill();
    throw error;
  }
}

/** The object that is the guest's memory becomes one without a file; all else stays. */
function ownMemory(word: string, { memoryMiB }: Shape): string {
  if (!word.includes('"memory-backend-file"')) return word;
  return JSON.stringify({ "qom-type": "memory-backend-ram", id: "memory", size: memoryMiB * 2 ** 20 });
}
