/** The guest's kernel and busybox: Debian's packages, unpacked without installing them. */

import { MayflyError } from "../contract/errors.ts";
import { identityOf, movePath, namesIn, removePath } from "../sys/paths.ts";
import { publishDirectory } from "../sys/publish.ts";
import { describeKernel } from "./artifacts.ts";
import { candidateOf, packageField, SYSTEM_SOURCE, updateLists } from "./debian.ts";
import { kernelsDirectory, newestKernel } from "./kernel-store.ts";
import type { Step, StepContext } from "./step.ts";
import { unpackPackages } from "./unpack.ts";
import { compareVersions, type Workspace } from "./workspace.ts";

const KERNEL_PACKAGE = "linux-image-cloud-amd64";
const BUSYBOX_PACKAGE = "busybox-static";
/** Parts of the module tree that a guest on virtio can have a use for. */
const MODULE_PARTS = [
  "arch",
  "block",
  "crypto",
  "drivers/block",
  "drivers/char",
  "drivers/net",
  "drivers/virtio",
  "fs",
  "lib",
  "mm",
  "net",
];

/**
 * Step: fills `made.kernel` with the newest kernel that was built here, else with Debian's, `artifacts/kernel/VERSION/vmlinuz`; its
 * modules lie beside it. What is in force already stays.
 */
export function kernelStep(workspace: Workspace): Step {
  return {
    name: "guest kernel",
    async pending() {
      const { kernel } = workspace.made;
      if (kernel === undefined) return "not set up yet";
      const wanted = process.env["MAYFLY_KERNEL"];
      if (wanted && wanted !== kernel.path) return "MAYFLY_KERNEL names another";
      if (!wanted && !kernel.path.startsWith(`${workspace.directory}/`)) return "MAYFLY_KERNEL is no longer set";
      return (await identityOf(kernel.path)) === undefined ? `${kernel.path} is gone` : undefined;
    },
    async run(context) {
      const wanted = process.env["MAYFLY_KERNEL"];
      const path = wanted || (await newestKernel(workspace.stateDir, "minimal"));
      workspace.made.kernel = await describeKernel(path ?? (await cloudKernel(workspace, context)));
    },
  };
}

/** Step: fills `busyboxPath` with `artifacts/busybox/VERSION/busybox`. */
export function busyboxStep(workspace: Workspace): Step {
  const parent = `${workspace.directory}/busybox`;
  const unpacked = async () => {
    const version = (await namesIn(parent)).filter(isComplete).sort(compareVersions).at(-1);
    return version === undefined ? undefined : `${parent}/${version}/busybox`;
  };
  return {
    name: "guest busybox",
    async pending() {
      workspace.busyboxPath = await unpacked();
      return workspace.busyboxPath === undefined ? "not set up yet" : undefined;
    },
    async run(context) {
      const version = await needCandidate(BUSYBOX_PACKAGE, context);
      const path = `${parent}/${version.replaceAll(/[^A-Za-z0-9.+~-]/g, "_")}`;
      await publishDirectory(path, async (directory) => {
        await unpackPackages(SYSTEM_SOURCE, [`${BUSYBOX_PACKAGE}=${version}`], directory, context);
        await movePath(
          await firstOf(`${directory}/root/bin/busybox`, `${directory}/root/usr/bin/busybox`),
          `${directory}/busybox`,
        );
        await removePath(`${directory}/root`);
      });
      workspace.busyboxPath = `${path}/busybox`;
    },
  };
}

/** Debian's kernel: the newest that is there, or the one that Debian has now. @returns the absolute path of its image. */
export async function cloudKernel(workspace: Workspace, context: StepContext): Promise<string> {
  const newest = await newestKernel(workspace.stateDir, "cloud");
  if (newest !== undefined) return newest;
  const version = await needCandidate(KERNEL_PACKAGE, context);
  const depends = (await packageField(SYSTEM_SOURCE, `${KERNEL_PACKAGE}=${version}`, "Depends")) ?? "";
  const [, name, realVersion] = /(linux-image-\S+) \(= ([^)]+)\)/.exec(depends) ?? [];
  if (name === undefined || realVersion === undefined) {
    throw new MayflyError(
      "kernel_not_found",
      `Cannot tell which kernel ${KERNEL_PACKAGE} ${version} stands for: it depends on "${depends}"`,
    );
  }
  const release = name.slice("linux-image-".length);
  const path = `${kernelsDirectory(workspace.stateDir, "cloud")}/${release}`;
  await publishDirectory(path, async (directory) => {
    await unpackPackages(SYSTEM_SOURCE, [`${name}=${realVersion}`], directory, context);
    await arrange(`${directory}/root`, directory, release);
    await removePath(`${directory}/root`);
  });
  return `${path}/vmlinuz`;
}

async function arrange(root: string, directory: string, release: string): Promise<void> {
  await movePath(`${root}/boot/vmlinuz-${release}`, `${directory}/vmlinuz`);
  const modules = await firstOf(`${root}/lib/modules/${release}`, `${root}/usr/lib/modules/${release}`);
  for (const part of MODULE_PARTS.map((name) => `kernel/${name}`)) {
    if ((await identityOf(`${modules}/${part}`)) !== undefined)
      await movePath(`${modules}/${part}`, `${directory}/modules/${part}`);
  }
  await movePath(`${modules}/modules.builtin`, `${directory}/modules/modules.builtin`);
}

/** The first path that exists; the last one if none does, for the error to name it. */
async function firstOf(path: string, otherwise: string): Promise<string> {
  return (await identityOf(path)) === undefined ? otherwise : path;
}

/** The version of a package that apt would take; the system's lists are updated if they do not know it. @throws MayflyError `artifact_missing`. */
export async function needCandidate(name: string, context: StepContext): Promise<string> {
  const known = await candidateOf(SYSTEM_SOURCE, name);
  if (known !== undefined) return known;
  await updateLists(SYSTEM_SOURCE, context);
  const version = await candidateOf(SYSTEM_SOURCE, name);
  if (version !== undefined) return version;
  throw new MayflyError(
    "artifact_missing",
    `Cannot find the Debian package ${name}: the system's sources do not have it`,
    {
      details: { remedy: "add Debian's main component to /etc/apt/sources.list, then: apt-get update" },
    },
  );
}

/** Names of directories that are published; those still being made begin with a dot. */
function isComplete(name: string): boolean {
  return !name.startsWith(".");
}
