/** Trying a guest kernel before it is put in force. */
import { MayflyError } from "../contract/errors.ts";
import { kernelAside } from "../setup/kernel-choice.ts";
import { runSteps, type SetupOptions } from "../setup/setup.ts";
import { runDirectory } from "../sys/directories.ts";
import { isRoot } from "../sys/paths.ts";
import { probeLocalAccelerators } from "./engine.ts";

/**
 * Boots a guest with a kernel up to the agent's answer. Only root can; for anybody else nothing is tried.
 *
 * @throws MayflyError `boot_failed` with the reason for each accelerator, if it boots under none.
 */
export async function tryKernel(name: string, options: SetupOptions): Promise<void> {
  if (!isRoot()) return;
  const run = async () => {
    const { kernelPath, initramfsPath } = await kernelAside(name, options);
    const before = { MAYFLY_KERNEL: process.env["MAYFLY_KERNEL"], MAYFLY_INITRAMFS: process.env["MAYFLY_INITRAMFS"] };
    setVariables({ MAYFLY_KERNEL: kernelPath, MAYFLY_INITRAMFS: initramfsPath });
    try {
      const probes = await probeLocalAccelerators(options.stateDir, runDirectory());
      if (probes.some(({ usable }) => usable)) return;
      const problems = probes.map(({ accelerator, reason }) => `${accelerator}: ${reason}`);
      throw new MayflyError("boot_failed", `Cannot boot the guest kernel ${name}: ${problems.join("; ")}`, {
        details: { path: kernelPath, problems },
      });
    } finally {
      setVariables(before);
    }
  };
  await runSteps([{ name: "kernel trial", pending: async () => "booting a guest", run }], options);
}

function setVariables(values: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
}
