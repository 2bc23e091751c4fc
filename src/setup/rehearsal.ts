/**
 * The rehearsal image: a tiny root file system in which warm clones run their first container before they are handed out, so that
 * the guest's code for it is translated and its caches are filled. Busybox and a few directories.
 */

import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { copyPath, identityOf, makeDirectory, makeLink, removePath, writeText } from "../sys/paths.ts";
import { publishDirectory, sha256File } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import type { Step } from "./step.ts";
import type { Workspace } from "./workspace.ts";

const FILE_NAME = "rootfs.erofs";
const DIRECTORIES = ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] as const;

/** Step: fills `made.rehearsal` with `artifacts/rehearsal/ID/rootfs.erofs`. Needs busybox made. */
export function rehearsalStep(workspace: Workspace): Step {
  return {
    name: "rehearsal image",
    async pending() {
      const { rehearsal } = workspace.made;
      if (rehearsal === undefined) return "not set up yet";
      if (workspace.busyboxPath !== undefined && rehearsal.path !== pathFor(workspace)) return "its parts changed";
      return (await identityOf(rehearsal.path)) === undefined ? `${rehearsal.path} is gone` : undefined;
    },
    async run({ report }) {
      const path = pathFor(workspace);
      report("packing");
      if ((await identityOf(path)) === undefined) {
        await publishDirectory(dirname(path), async (directory) => {
          const tree = `${directory}/tree`;
          await fill(workspace, tree);
          // Fixed times and id: the same bytes from the same parts.
          const same = ["-T0", "-U00000000-0000-0000-0000-000000000000", "--all-root"];
          await runTool(["mkfs.erofs", "--quiet", "-zlz4", ...same, `${directory}/${FILE_NAME}`, tree]);
          await removePath(tree);
        });
      }
      workspace.made.rehearsal = { path, sha256: await sha256File(path) };
    },
  };
}

function pathFor(workspace: Workspace): string {
  const id = createHash("sha256")
    .update(JSON.stringify([workspace.busyboxPath, DIRECTORIES]))
    .digest("hex");
  return `${workspace.directory}/rehearsal/${id.slice(0, 32)}/${FILE_NAME}`;
}

async function fill(workspace: Workspace, tree: string): Promise<void> {
  if (!workspace.busyboxPath) throw new Error("the rehearsal image needs busybox first");
  for (const name of DIRECTORIES) await makeDirectory(`${tree}/${name}`);
  await copyPath(workspace.busyboxPath, `${tree}/bin/busybox`);
  await makeLink("busybox", `${tree}/bin/sh`);
  await writeText(`${tree}/etc/passwd`, "root:x:0:0:root:/root:/bin/sh\n");
  await writeText(`${tree}/etc/group`, "root:x:0:\n");
}
