/** Compiles Mayfly's own C programs, the guest agent and the launcher, statically with musl. */

import { createHash } from "node:crypto";
import { identityOf, makeDirectory, movePath, removePath, writeText } from "../sys/paths.ts";
import { publishDirectory, sha256File } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import type { Sources } from "./guest-sources.ts";
import type { Step, StepContext } from "./step.ts";
import type { Workspace } from "./workspace.ts";

const AGENT = "mayfly-agent";
const LAUNCHER = "mayfly-launcher";
/** Digits of a build id: 16 bytes, as the agent's hello has them. */
const BUILD_ID_DIGITS = 32;

/** What a set of sources is known by: 32 hexadecimal digits that change with any name or byte. */
export function sourcesId(sources: Sources): string {
  const hash = createHash("sha256");
  for (const [name, text] of Object.entries(sources).sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${name}\0${Buffer.byteLength(text)}\0${text}`);
  }
  return hash.digest("hex").slice(0, BUILD_ID_DIGITS);
}

/** Step: fills `made.agent` with `artifacts/agent/ID/mayfly-agent`, built from the sources of this Mayfly. */
export function agentStep(workspace: Workspace): Step {
  const sources = workspace.sources.agent;
  const buildId = sourcesId(sources);
  const path = `${workspace.directory}/agent/${buildId}/${AGENT}`;
  return {
    name: "guest agent",
    async pending() {
      if (workspace.made.agent?.path !== path)
        return workspace.made.agent === undefined ? "not set up yet" : "its sources changed";
      return (await identityOf(path)) === undefined ? `${path} is gone` : undefined;
    },
    async run(context) {
      await build(sources, AGENT, path, buildId, context);
      workspace.made.agent = { path, buildId, sha256: await sha256File(path) };
    },
  };
}

/** Step: fills `made.launcher` with `artifacts/launcher/ID/mayfly-launcher`. */
export function launcherStep(workspace: Workspace): Step {
  const sources = workspace.sources.launcher;
  const id = sourcesId(sources);
  const path = `${workspace.directory}/launcher/${id}/${LAUNCHER}`;
  return {
    name: "launcher",
    async pending() {
      if (workspace.made.launcher?.path !== path)
        return workspace.made.launcher === undefined ? "not set up yet" : "its sources changed";
      return (await identityOf(path)) === undefined ? `${path} is gone` : undefined;
    },
    async run(context) {
      await build(sources, LAUNCHER, path, id, context);
      workspace.made.launcher = { path };
    },
  };
}

/** Writes the sources into a directory of their own, runs their Makefile there, and publishes the program. */
async function build(sources: Sources, program: string, path: string, id: string, context: StepContext): Promise<void> {
  if ((await identityOf(path)) !== undefined) return;
  await publishDirectory(path.slice(0, path.lastIndexOf("/")), async (directory) => {
    const work = `${directory}/work`;
    for (const [name, text] of Object.entries(sources)) await writeText(`${work}/source/${name}`, text);
    await makeDirectory(`${work}/build`);
    context.report("compiling with musl-gcc");
    const variables = [`BUILD=${work}/build`, `BUILD_ID=${id}`, "MUSL_CC=musl-gcc"];
    await runTool(["make", "-C", `${work}/source`, ...variables, `${work}/build/${program}`], {
      endsWithUs: true,
      ...(context.signal === undefined ? {} : { signal: context.signal }),
    });
    await movePath(`${work}/build/${program}`, `${directory}/${program}`);
    await removePath(work);
  });
}
