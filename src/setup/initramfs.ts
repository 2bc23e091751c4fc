/** The guest's initramfs: the agent as PID 1, busybox, the kernel modules, and a minimal /etc; the same bytes from the same parts. */

import { createHash } from "node:crypto";
import { dirname } from "node:path";
import {
  copyPath,
  identityOf,
  makeDirectory,
  makeLink,
  removePath,
  setTimes,
  treeBelow,
  writeText,
} from "../sys/paths.ts";
import { publishDirectory, sha256File } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import { collectModules, parseModuleList } from "./modules.ts";
import type { Step, StepContext } from "./step.ts";
import type { Workspace } from "./workspace.ts";

/** Raise it when the layout below changes: it is part of the initramfs' address. */
const LAYOUT = 2;
/** Not compressed: unpacking 3 MB under emulation costs the guest more time than reading them (docs/adr/0008). */
const FILE_NAME = "initramfs.cpio";

const DIRECTORIES: readonly [path: string, mode: number][] = [
  ["bin", 0o755],
  ["dev", 0o755],
  ["etc", 0o755],
  ["lib/modules", 0o755],
  ["mnt", 0o755],
  ["proc", 0o755],
  ["root", 0o700],
  ["run", 0o755],
  ["sys", 0o755],
  ["tmp", 0o1777],
  ["usr", 0o755],
  ["var/log", 0o755],
  ["var/tmp", 0o1777],
];

const LINKS: Readonly<Record<string, string>> = {
  sbin: "bin",
  "usr/bin": "../bin",
  "usr/sbin": "../bin",
  "var/run": "../run",
  "etc/mtab": "../proc/self/mounts",
};

const FILES: Readonly<Record<string, string>> = {
  "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
  "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
  "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
  "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
  "etc/resolv.conf": "",
  "etc/profile": "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
};

/** Step: fills `made.initramfs` with `artifacts/initramfs/ID/initramfs.cpio`. Needs kernel, agent and busybox made. */
export function initramfsStep(workspace: Workspace): Step {
  return {
    name: "initramfs",
    async pending() {
      const { initramfs } = workspace.made;
      if (initramfs === undefined) return "not set up yet";
      const wanted = process.env["MAYFLY_INITRAMFS"] || pathFor(workspace);
      if (initramfs.path !== wanted) return "its parts changed";
      return (await identityOf(wanted)) === undefined ? `${wanted} is gone` : undefined;
    },
    async run(context) {
      const path = process.env["MAYFLY_INITRAMFS"] || pathFor(workspace);
      if ((await identityOf(path)) === undefined) await publish(workspace, path, context);
      workspace.made.initramfs = { path, sha256: await sha256File(path) };
    },
  };
}

/** Where the initramfs of the present parts lies: its directory is named after them. */
function pathFor(workspace: Workspace): string {
  const { kernel, agent } = workspace.made;
  const parts = [
    LAYOUT,
    kernel?.sha256,
    agent?.sha256,
    workspace.busyboxPath,
    moduleList(workspace),
    DIRECTORIES,
    LINKS,
    FILES,
  ];
  const id = createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
  return `${workspace.directory}/initramfs/${id}/${FILE_NAME}`;
}

async function publish(workspace: Workspace, path: string, context: StepContext): Promise<void> {
  await publishDirectory(dirname(path), async (directory) => {
    const root = `${directory}/root`;
    context.report("collecting kernel modules");
    await fill(workspace, root);
    context.report("packing");
    await pack(root, `${directory}/${FILE_NAME}`, context);
    await removePath(root);
  });
}

async function fill(workspace: Workspace, root: string): Promise<void> {
  const { kernel, agent } = workspace.made;
  if (!kernel || !agent || !workspace.busyboxPath)
    throw new Error("the initramfs needs kernel, agent and busybox first");
  for (const [path, mode] of DIRECTORIES) await makeDirectory(`${root}/${path}`, mode);
  for (const [path, text] of Object.entries(FILES)) await writeText(`${root}/${path}`, text);
  for (const [path, target] of Object.entries(LINKS)) await makeLink(target, `${root}/${path}`);
  await copyPath(agent.path, `${root}/init`);
  await copyPath(workspace.busyboxPath, `${root}/bin/busybox`);
  const { stdout } = await runTool([workspace.busyboxPath, "--list"]);
  for (const applet of stdout.split("\n").filter((name) => name !== "" && name !== "busybox")) {
    await makeLink("busybox", `${root}/bin/${applet}`);
  }
  const tree = `${dirname(kernel.path)}/modules`;
  const order = await collectModules(tree, parseModuleList(moduleList(workspace)), `${root}/lib/modules`);
  await writeText(`${root}/lib/modules.list`, order.map((name) => `/lib/modules/${name}\n`).join(""));
}

/** Text that names the kernel modules a guest loads; it comes with the agent's sources. */
function moduleList(workspace: Workspace): string {
  return workspace.sources.agent["modules.list"] ?? "";
}

/** Packs a tree: sorted names, one time, owner root, no device or inode numbers of this host. */
async function pack(root: string, path: string, context: StepContext): Promise<void> {
  const names = await treeBelow(root);
  await setTimes(names.map((name) => `${root}/${name}`));
  const options = { cwd: root, ...(context.signal === undefined ? {} : { signal: context.signal }) };
  const list = new TextEncoder().encode(names.map((name) => `${name}\0`).join(""));
  await runTool(["cpio", "-o", "-0", "-H", "newc", "--reproducible", "--owner=+0:+0", "--quiet", "-F", path], {
    ...options,
    input: list,
  });
}
