/** The image of `image-echo`: the static busybox that the base guest has, and nothing else. */
import { makeDirectory, removePath } from "../../src/sys/paths.ts";
import { runTool } from "../../src/sys/tool.ts";
import { makeRootfs } from "../bundle.ts";
import { writeOciLayout } from "./oci-layout.ts";

/** Makes its OCI layout. @param directory a new one. @returns the layout's directory. */
export async function busyboxImage(directory: string, busyboxPath: string): Promise<string> {
  const [root, tarball, layout] = [`${directory}/root`, `${directory}/layer.tar`, `${directory}/layout`];
  await makeRootfs(root, busyboxPath);
  await runTool(["tar", "-C", root, "--owner=0", "--group=0", "--numeric-owner", "-cf", tarball, "."]);
  await makeDirectory(layout);
  const config = { Entrypoint: [], Env: ["PATH=/bin"], WorkingDir: "/", User: "", ExposedPorts: {} };
  await writeOciLayout(layout, [tarball], config);
  await removePath(root);
  return layout;
}
