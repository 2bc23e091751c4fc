/**
 * Stand-ins for libraries that Debian's QEMU links but that none of Mayfly's VMs can reach: VNC's picture formats and logins,
 * RDMA, D-Bus, the disassembler and the like. All are one shared object with the symbols that QEMU wants, nearly all of which abort.
 * QEMU itself stays as Debian built it; it starts in half of the time and keeps 4 MB less for itself (docs/PERFORMANCE.md).
 * `MAYFLY_STAND_INS=off` does without.
 */

import { createHash } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { identityOf } from "../sys/paths.ts";
import { publishDirectory } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import type { QemuArtifact } from "./artifacts.ts";
import { compileStandIns, type StandIn, type StoodIn } from "./stand-in-library.ts";
import fdt from "./stand-ins/fdt.c" with { type: "text" };
import gnutls from "./stand-ins/gnutls.c" with { type: "text" };
import type { Step, StepContext } from "./step.ts";
import type { Workspace } from "./workspace.ts";

/** By soname. */
const STAND_INS: Readonly<Record<string, StandIn>> = {
  "libcapstone.so.4": { unreached: "disassembling guest code for logs" },
  "libpng16.so.16": { unreached: "screenshots and VNC" },
  "libjpeg.so.62": { unreached: "VNC" },
  "libsasl2.so.2": { unreached: "VNC logins" },
  "libpixman-1.so.0": { unreached: "pictures of displays" },
  "libpmem.so.1": { unreached: "persistent memory" },
  "libfuse3.so.3": { unreached: "exporting disks" },
  "librdmacm.so.1": { unreached: "migration over RDMA" },
  "libibverbs.so.1": { unreached: "migration over RDMA" },
  "libvdeplug.so.2": { unreached: "VDE networks" },
  "libbpf.so.1": { unreached: "receive-side scaling of virtio-net" },
  "libudev.so.1": { unreached: "USB and multipath devices of the host" },
  "libnuma.so.1": { unreached: "binding memory to NUMA nodes" },
  "libgio-2.0.so.0": { unreached: "D-Bus" },
  "libgobject-2.0.so.0": { unreached: "D-Bus" },
  "libnettle.so.8": { unreached: "encrypted disks and logins" },
  "libhogweed.so.6": { unreached: "encrypted disks and logins" },
  "libgmp.so.10": { unreached: "encrypted disks and logins" },
  "libgnutls.so.30": {
    unreached: "TLS of VNC, NBD and migration",
    reached: { names: ["gnutls_global_init", "gnutls_rnd"], source: gnutls },
  },
  "libfdt.so.1": {
    unreached: "a megabyte of zeroes that is written over zeroes",
    reached: { names: ["fdt_create"], source: fdt, rest: "real" },
  },
};

/** Changes with how stand-ins are made. */
const FORMAT = 3;

/** Step: fills `made.qemu[].libraryPath` of the full QEMU and of Debian's KVM-only one. */
export function standInsStep(workspace: Workspace): Step {
  const isWanted = () => process.env["MAYFLY_STAND_INS"] !== "off";
  return {
    name: "library stand-ins",
    async pending() {
      for (const qemu of used(workspace)) {
        const reason = isWanted() ? await reasonToMake(workspace, qemu) : reasonToDrop(qemu);
        if (reason !== undefined) return reason;
      }
      return undefined;
    },
    async run(context) {
      for (const qemu of used(workspace)) {
        if (isWanted()) qemu.libraryPath = await make(workspace, qemu, context);
        else delete qemu.libraryPath;
      }
    },
  };
}

/** The QEMUs that VMs may run in: the first of each kind that Debian builds. */
function used({ made }: Workspace): QemuArtifact[] {
  const first = (kind: QemuArtifact["kind"]) => made.qemu?.find((entry) => entry.kind === kind);
  return [first("full"), first("microvm")].filter((entry) => entry !== undefined);
}

async function reasonToMake(workspace: Workspace, qemu: QemuArtifact): Promise<string | undefined> {
  if (qemu.libraryPath === "") return undefined;
  if (qemu.libraryPath !== pathFor(workspace, qemu)) return "not made for this QEMU yet";
  return (await identityOf(qemu.libraryPath)) === undefined ? `${qemu.libraryPath} is gone` : undefined;
}

function reasonToDrop(qemu: QemuArtifact): string | undefined {
  return qemu.libraryPath === undefined ? undefined : "MAYFLY_STAND_INS is off";
}

function pathFor(workspace: Workspace, qemu: QemuArtifact): string {
  const key = [FORMAT, qemu.path, qemu.sizeBytes, qemu.mtimeMs, JSON.stringify(STAND_INS)].join("\n");
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
  const libraries: StoodIn[] = [];
  for (const [, soname = "", file = ""] of linked.matchAll(/^\s*(\S+) => (\S+) /gm)) {
    const standIn = STAND_INS[soname];
    if (standIn === undefined) continue;
    const defined = await symbolsOf(["--defined-only"], file);
    const wanted = [...asked].filter(([name]) => defined.has(name));
    // A stand-in has functions only: a library whose data QEMU reads stays itself.
    if (wanted.some(([name]) => !"TtWi".includes(defined.get(name)?.type ?? ""))) continue;
    libraries.push({ soname, file, standIn, wanted: wanted.map(([name, { version }]) => ({ name, version })) });
  }
  context.report(libraries.map(({ soname }) => soname).join(", "));
  await compileStandIns(directory, libraries);
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
