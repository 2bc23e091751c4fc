/** A root file system with nothing but a static busybox, and an OCI bundle around it: what the peers run. */
import { artifactsDirectory } from "../src/setup/artifacts.ts";
import { copyPath, identityOf, makeDirectory, makeLink, namesIn, readOptional, writeText } from "../src/sys/paths.ts";
import { runTool } from "../src/sys/tool.ts";

const DIRECTORIES = ["bin", "dev", "etc", "proc", "sys", "tmp"] as const;
const APPLETS = ["sh", "echo", "cat"] as const;

/** The busybox that set-up has put into the guests; `undefined` where there is none. */
export async function findBusybox(stateDir: string): Promise<string | undefined> {
  const parent = `${artifactsDirectory(stateDir)}/busybox`;
  const versions = (await namesIn(parent)).filter((name) => !name.startsWith("."));
  const path = `${parent}/${versions.at(-1)}/busybox`;
  return (await identityOf(path))?.isFile ? path : undefined;
}

/** Fills `directory` with the root file system. */
export async function makeRootfs(directory: string, busyboxPath: string): Promise<void> {
  for (const name of DIRECTORIES) await makeDirectory(`${directory}/${name}`);
  await copyPath(busyboxPath, `${directory}/bin/busybox`);
  for (const name of APPLETS) await makeLink("busybox", `${directory}/bin/${name}`);
}

/**
 * Writes `config.json` into a bundle whose root file system is `rootfs`: what `runtime spec` proposes, without a terminal and with
 * the given command.
 */
export async function makeBundle(directory: string, runtime: string, command: readonly string[]): Promise<void> {
  await runTool([runtime, "spec"], { cwd: directory });
  const path = `${directory}/config.json`;
  const spec: { process: Record<string, unknown> } = JSON.parse((await readOptional(path)) ?? "{}");
  spec.process = { ...spec.process, terminal: false, args: command };
  await writeText(path, JSON.stringify(spec));
}
