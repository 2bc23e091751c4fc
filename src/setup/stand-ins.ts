/**
 * Stand-ins for libraries that Debian's full QEMU links but that none of Mayfly's VMs can reach: VNC's picture formats and
 * logins, RDMA, the disassembler and the like. Each has the symbols that QEMU wants, and every one of them aborts. QEMU itself
 * stays as Debian built it; it starts in two thirds of the time and keeps 2 MB less for itself (docs/PERFORMANCE.md).
 * `MAYFLY_STAND_INS=off` does without.
 */

import { createHash } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { identityOf, writeText } from "../sys/paths.ts";
import { publishDirectory } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import type { QemuArtifact } from "./artifacts.ts";
import type { Step, StepContext } from "./step.ts";
import type { Workspace } from "./workspace.ts";

/** By soname: what QEMU uses it for, none of which is in a Mayfly command line. */
const UNREACHABLE: Readonly<Record<string, string>> = {
  "libcapstone.so.4": "disassembling guest code for logs",
  "libpng16.so.16": "screenshots and VNC",
  "libjpeg.so.62": "VNC",
  "libsasl2.so.2": "VNC logins",
  "libpmem.so.1": "persistent memory",
  "libfuse3.so.3": "exporting disks",
  "librdmacm.so.1": "migration over RDMA",
  "libibverbs.so.1": "migration over RDMA",
  "libvdeplug.so.2": "VDE networks",
  "libbpf.so.1": "receive-side scaling of virtio-net",
  "libudev.so.1": "USB and multipath devices of the host",
  "libnuma.so.1": "binding memory to NUMA nodes",
};

/** Changes with how stand-ins are made. */
const FORMAT = 1;

/** A symbol that QEMU wants from a library. */
interface Wanted {
  name: string;
  /** Empty for a library without symbol versions. */
  version: string;
}

/** Step: fills `made.qemu[].libraryPath` of the full QEMU. */
export function standInsStep(workspace: Workspace): Step {
  const wanted = () => process.env["MAYFLY_STAND_INS"] !== "off";
  const full = () => workspace.made.qemu?.find((entry) => entry.kind === "full");
  return {
    name: "library stand-ins",
    async pending() {
      const qemu = full();
      if (qemu === undefined || (!wanted() && qemu.libraryPath === undefined)) return undefined;
      if (!wanted()) return "MAYFLY_STAND_INS is off";
      if (qemu.libraryPath === "") return undefined;
      if (qemu.libraryPath !== pathFor(workspace, qemu)) return "not made for this QEMU yet";
      return (await identityOf(qemu.libraryPath)) === undefined ? `${qemu.libraryPath} is gone` : undefined;
    },
    async run(context) {
      const qemu = full();
      if (qemu === undefined) return;
      if (wanted()) qemu.libraryPath = await make(workspace, qemu, context);
      else delete qemu.libraryPath;
    },
  };
}

function pathFor(workspace: Workspace, qemu: QemuArtifact): string {
  const key = [FORMAT, qemu.path, qemu.sizeBytes, qemu.mtimeMs, ...Object.keys(UNREACHABLE)].join("\n");
  return `${workspace.directory}/stand-ins/${createHash("sha256").update(key).digest("hex").slice(0, 32)}`;
}

/** @returns the directory of the stand-ins; empty if this QEMU does not run with them. */
async function make(workspace: Workspace, qemu: QemuArtifact, context: StepContext): Promise<string> {
  const path = pathFor(workspace, qemu);
  if ((await identityOf(path)) !== undefined) return path;
  try {
    await publishDirectory(path, (directory) => makeInto(directory, qemu, context));
    return path;
  } catch (error) {
    if (!(error instanceof MayflyError) || error.code !== "tool_failed") throw error;
    context.report(`left out: ${error.message}`);
    return "";
  }
}

async function makeInto(directory: string, qemu: QemuArtifact, context: StepContext): Promise<void> {
  const { stdout: linked } = await runTool(["ldd", qemu.path]);
  const asked = await symbolsOf(["--undefined-only"], qemu.path);
  for (const [, soname = "", file = ""] of linked.matchAll(/^\s*(\S+) => (\S+) /gm)) {
    if (UNREACHABLE[soname] === undefined) continue;
    context.report(soname);
    const defined = await symbolsOf(["--defined-only"], file);
    const wanted = [...asked].filter(([name]) => defined.has(name));
    // A stand-in has functions only: a library whose data QEMU reads stays itself.
    if (wanted.some(([name]) => !"TtWi".includes(defined.get(name)?.type ?? ""))) continue;
    await compile(
      directory,
      soname,
      wanted.map(([name, { version }]) => ({ name, version })),
    );
  }
  // Resolving every symbol at once shows whether anything else needed what a stand-in does not have.
  await runTool([qemu.path, "--version"], { env: { LD_LIBRARY_PATH: directory, LD_BIND_NOW: "1" } });
}

/** Dynamic symbols of a file by name, with nm's type letter and the version asked for. */
async function symbolsOf(options: string[], file: string): Promise<Map<string, { type: string; version: string }>> {
  const { stdout } = await runTool(["nm", "--dynamic", "--with-symbol-versions", ...options, file]);
  const symbols = new Map<string, { type: string; version: string }>();
  for (const line of stdout.split("\n")) {
    const [type = "", symbol = ""] = line.trim().split(/\s+/).slice(-2);
    const [name = "", version = ""] = symbol.split(/@@?/);
    if (name !== "") symbols.set(name, { type, version });
  }
  return symbols;
}

async function compile(directory: string, soname: string, wanted: readonly Wanted[]): Promise<void> {
  const source = `${directory}/stand-in.c`;
  const map = `${directory}/stand-in.map`;
  await writeText(source, `${wanted.map(({ name }) => `void ${name}(void) { __builtin_trap(); }`).join("\n")}\n`);
  const versions = Map.groupBy(
    wanted.filter(({ version }) => version !== ""),
    ({ version }) => version,
  );
  const nodes = [...versions].map(([version, symbols]) => {
    const names = symbols.map(({ name }) => `${name};`).join(" ");
    return `${version} { global: ${names} };`;
  });
  await writeText(map, `${nodes.join("\n")}\n`);
  const script = nodes.length === 0 ? [] : [`-Wl,--version-script=${map}`];
  const flags = ["-w", "-shared", "-fPIC", "-nostdlib", "-Os", "-s", `-Wl,-soname,${soname}`, "-Wl,-z,noseparate-code"];
  await runTool(["gcc", ...flags, ...script, "-o", `${directory}/${soname}`, source]);
  await runTool(["rm", source, map]);
}
