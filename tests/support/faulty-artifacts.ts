/** For tests: artifacts of which one is not what it should be. */
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { HostArtifacts } from "../../src/contract/machine.ts";
import { readCpio, writeCpio } from "./cpio.ts";
import { hostArtifacts, newDirectory } from "./engine-host.ts";

const EXECUTABLE = 0o100755;

/** Artifacts whose initramfs starts a shell script in the agent's place; the agent is `/agent`. */
export function withInit(script: string): HostArtifacts {
  const artifacts = hostArtifacts();
  const original = readFileSync(artifacts.initramfs.path);
  const agent = readCpio(original).find(({ name }) => name === "init" || name === "./init");
  if (agent === undefined) throw new Error("the initramfs has no init");
  const overlay = writeCpio([
    { name: "agent", mode: EXECUTABLE, data: agent.data },
    { name: "init", mode: EXECUTABLE, data: Buffer.from(`#!/bin/sh\n${script}\n`) },
  ]);
  const bytes = Buffer.concat([original, Buffer.alloc(-original.length & 3), overlay]);
  const path = join(newDirectory("initramfs"), "initramfs.cpio");
  writeFileSync(path, bytes);
  return { ...artifacts, initramfs: { path, sha256: new Bun.CryptoHasher("sha256").update(bytes).digest("hex") } };
}

/** Artifacts whose launcher is a shell script, in which `"$LAUNCHER" "$@"` is the real one. */
export function withLauncher(script: string): HostArtifacts {
  const artifacts = hostArtifacts();
  const path = join(newDirectory("launcher"), "launcher");
  writeFileSync(path, `#!/bin/sh\nLAUNCHER='${artifacts.launcher.path}'\n${script}\n`);
  chmodSync(path, 0o755);
  return { ...artifacts, launcher: { path } };
}
