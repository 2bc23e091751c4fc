/** Images of the services: made once of Debian's packages, and kept in the state directory by the hash of what they are made of. */
import { createHash } from "node:crypto";
import { debianCodename, debianMirror, installPackages } from "../../src/setup/debian.ts";
import { makeDirectory, namesIn, removePath, writeText } from "../../src/sys/paths.ts";
import { exists, publishDirectory } from "../../src/sys/publish.ts";
import { findTool, runTool } from "../../src/sys/tool.ts";
import type { Listener } from "../prepare.ts";
import { type LayoutConfig, writeOciLayout } from "./oci-layout.ts";
import { type App, RECIPES, type Recipe, SERVICE_DIRECTORY, SERVICE_PORT } from "./recipes.ts";

/** Counts up when images are made in another way. */
const FORMAT = 1;
const PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/** Of a slow mirror. */
const BUILD_LIMIT_MS = 1_800_000;
/** Nobody reads them in a service's image. */
const LEFT_OUT = ["/usr/share/doc/*", "/usr/share/locale/*"];

/**
 * The OCI layout of an app's image, with the name `latest` in it; made if it is not there yet, which takes about a minute.
 * @returns its directory.
 * @throws MayflyError `tool_failed`, `artifact_missing` on a system that is not Debian, `cancelled`.
 */
export async function appImage(app: App, stateDir: string, listener: Listener): Promise<string> {
  const recipe = RECIPES[app];
  const codename = await debianCodename();
  const config: LayoutConfig = {
    Entrypoint: recipe.entrypoint,
    Env: [`PATH=${PATHS}`],
    WorkingDir: SERVICE_DIRECTORY,
    User: "nobody",
    ExposedPorts: { [`${SERVICE_PORT}/tcp`]: {} },
  };
  const { packages, source, compile } = recipe;
  const made = JSON.stringify({ FORMAT, codename, packages, source, compile, config, LEFT_OUT });
  const hash = createHash("sha256").update(made).digest("hex").slice(0, 16);
  const directory = `${stateDir}/bench/images`;
  const path = `${directory}/${app}-${hash}`;
  if (await exists(path)) return path;
  await installTools(["mmdebstrap"], listener);
  await publishDirectory(path, async (beside) => {
    const base = `${beside}/base.tar`;
    await makeBase(recipe, codename, beside, base, listener);
    listener.progress(`image of ${app}: adding the service`);
    const service = await packService(recipe, beside, listener.signal);
    listener.progress(`image of ${app}: writing the layout`);
    await writeOciLayout(beside, [base, service], config);
  });
  const older = (await namesIn(directory)).filter((name) => name.startsWith(`${app}-`) && name !== `${app}-${hash}`);
  for (const name of older) await removePath(`${directory}/${name}`);
  return path;
}

/** Installs the Debian packages of programs that are missing; package and program have the same name. */
export async function installTools(names: readonly string[], { note, progress, signal }: Listener): Promise<void> {
  const missing = names.filter((name) => findTool(name) === undefined);
  if (missing.length === 0) return;
  note(`installing the Debian packages ${missing.join(", ")}`);
  await installPackages(missing, { report: (message) => progress(message), signal });
}

/** A root file system with Debian's essential packages and the recipe's, and the compiled service beside it if there is one. */
async function makeBase(
  recipe: Recipe,
  codename: string,
  directory: string,
  tarball: string,
  listener: Listener,
): Promise<void> {
  const { uri, keyring } = await debianMirror(codename);
  await writeText(`${directory}/${recipe.source.name}`, recipe.source.text);
  const inside = `/tmp/service`;
  const compile =
    recipe.compile === undefined
      ? []
      : [
          `mkdir "$1"${inside}`,
          `cp ${recipe.source.name} "$1"${inside}`,
          `chroot "$1" sh -c 'cd ${inside} && ${recipe.compile.join(" ")}'`,
          `cp "$1"${inside}/*.class .`,
          `rm -r "$1"${inside}`,
        ];
  await runTool(
    [
      ...[
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        `--include=${recipe.packages.join(",")}`,
        "--skip=output/dev",
      ],
      ...LEFT_OUT.map((pattern) => `--dpkgopt=path-exclude=${pattern}`),
      ...compile.map((line) => `--customize-hook=${line}`),
      ...[codename, tarball, `deb [signed-by=${keyring}] ${uri} ${codename} main`],
    ],
    {
      cwd: directory,
      // What an interrupted run leaves behind goes with the directory.
      env: { TMPDIR: directory },
      deadlineMs: BUILD_LIMIT_MS,
      signal: listener.signal,
      endsWithUs: true,
      onLine(line) {
        const step = /^I: ([^/'"]+)$/.exec(line)?.[1];
        if (step !== undefined) listener.progress(`root file system: ${step}`);
      },
    },
  );
}

/** The layer of the service. @returns the path of its tarball. */
async function packService(recipe: Recipe, directory: string, signal: AbortSignal): Promise<string> {
  const root = `${directory}/service`;
  const place = `${root}${SERVICE_DIRECTORY}`;
  await makeDirectory(place);
  const names = (await namesIn(directory)).filter((name) => name === recipe.source.name || name.endsWith(".class"));
  for (const name of names) await runTool(["install", "-m", "644", `${directory}/${name}`, place], { signal });
  const tarball = `${directory}/service.tar`;
  const same = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@0"];
  await runTool(["tar", "-C", root, ...same, "-cf", tarball, "srv"], { signal });
  for (const name of [...names, "service"]) await removePath(`${directory}/${name}`);
  return tarball;
}
