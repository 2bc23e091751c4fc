/** Compiles the shared object that takes the place of libraries, and puts it under all their names. */

import { makeLink, removePath, writeText } from "../sys/paths.ts";
import { runTool } from "../sys/tool.ts";

/** How one library is stood in for. */
export interface StandIn {
  /** What QEMU uses the library for, none of which is in a Mayfly command line. */
  unreached: string;
  /** Functions that QEMU does reach, which the stand-in therefore has. */
  reached?: {
    names: readonly string[];
    /** C that defines them. */
    source: string;
    /** Whether all other functions are the real library's, which is loaded behind the stand-in; otherwise they abort. */
    rest?: "real";
  };
}

/** A symbol that QEMU wants from a library. */
export interface Wanted {
  name: string;
  /** Empty for a library without symbol versions. */
  version: string;
}

/** A library of this host that is stood in for. */
export interface StoodIn {
  soname: string;
  /** Absolute path of the real one. */
  file: string;
  standIn: StandIn;
  wanted: readonly Wanted[];
}

/** The dynamic linker maps one file once, under however many names it is asked for: less memory and time than a file for each. */
const FILE = "stand-ins.so";
const FLAGS = ["-shared", "-fPIC", "-nostdlib", "-Os", "-s", "-Wl,-z,noseparate-code"];

/** Makes the stand-ins of libraries in a directory for `LD_LIBRARY_PATH`. @throws MayflyError `tool_failed`. */
export async function compileStandIns(directory: string, libraries: readonly StoodIn[]): Promise<void> {
  const work = `${directory}/work`;
  const inputs: string[] = [];
  const symbols = libraries.flatMap(ownSymbols);
  const carriedOut = new Set(libraries.flatMap(({ standIn }) => standIn.reached?.names ?? []));
  const aborting = symbols.filter(({ name }) => !carriedOut.has(name));
  await writeText(
    `${work}/aborting.c`,
    aborting.map(({ name }) => `void ${name}(void) { __builtin_trap(); }\n`).join(""),
  );
  for (const { soname, file, standIn } of libraries) {
    if (standIn.reached === undefined) continue;
    await writeText(`${work}/${soname}.c`, standIn.reached.source);
    inputs.push(`${work}/${soname}.c`);
    if (standIn.reached.rest !== "real") continue;
    // An empty library whose name is the real one's path: linking with it has the dynamic linker load that path.
    await runTool(["gcc", ...FLAGS, `-Wl,-soname,${file}`, "-o", `${work}/${soname}`, "-x", "c", "/dev/null"]);
    inputs.push("-Wl,--no-as-needed", `${work}/${soname}`);
  }
  const nodes = versionNodes(symbols);
  await writeText(`${work}/versions.map`, nodes);
  const linking = [`-Wl,-soname,${FILE}`, ...(nodes === "" ? [] : [`-Wl,--version-script=${work}/versions.map`])];
  await runTool(["gcc", "-w", ...FLAGS, ...linking, "-o", `${directory}/${FILE}`, `${work}/aborting.c`, ...inputs]);
  for (const { soname } of libraries) await makeLink(FILE, `${directory}/${soname}`);
  await removePath(work);
}

/** The symbols that a stand-in has itself. */
function ownSymbols({ standIn, wanted }: StoodIn): readonly Wanted[] {
  const { reached } = standIn;
  return reached?.rest === "real" ? wanted.filter(({ name }) => reached.names.includes(name)) : wanted;
}

/** A version script of the linker (ld's manual, "VERSION"): a node for each version. Symbols without one need none. */
function versionNodes(symbols: readonly Wanted[]): string {
  const versioned = symbols.filter(({ version }) => version !== "");
  const nodes = [...Map.groupBy(versioned, ({ version }) => version)].map(([version, group]) => {
    return `${version} { global: ${group.map(({ name }) => `${name};`).join(" ")} };\n`;
  });
  return nodes.join("");
}
