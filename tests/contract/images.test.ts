/** Images from a registry and from Dockerfiles, and VMs on them, as a user has them: command line, daemon, QEMU. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { findTool } from "../../src/sys/tool.ts";
import { ROOT } from "../architecture/sources.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";
import { Installation } from "../support/mayfly-process.ts";
import { writeLayout } from "../support/oci-layout.ts";
import { missingRegistryTools, startRegistry, type TestRegistry } from "../support/registry.ts";
import { rootTree, tarballOf } from "../support/rootfs.ts";

const missing = [...missingRegistryTools, ...["buildah"].filter((tool) => findTool(tool) === undefined)];
const described = missing.length === 0 ? describeVms : describe.skip;

described(`images${missing.length === 0 ? "" : ` (${missing.join(", ")} missing)`}`, () => {
  let daemon: TestDaemon;
  let registry: TestRegistry;
  let mayfly: Installation;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    registry = await startRegistry({ directory: newDirectory("registry") });
    const layer = new Uint8Array(await Bun.file(await tarballOf(await rootTree())).bytes());
    const layout = newDirectory("layout");
    const top = [{ name: "srv/words", content: "from the image\n" }, { name: "etc/.wh.release" }];
    const config = {
      Env: ["PATH=/bin", "GREETING=hello"],
      Cmd: ["sh", "-c", "echo $GREETING; cat words"],
      WorkingDir: "/srv",
      User: "alice",
    };
    await writeLayout(layout, [{ layers: [layer, top], config, name: "x" }]);
    await registry.push(`oci:${layout}:x`, "app:1");
    mayfly = new Installation(`${ROOT}/src/cli/main.ts`, daemon.stateDir);
  }, 60_000);
  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]();
    await daemon?.[Symbol.asyncDispose]();
  });

  /** Runs a command line to its end. */
  const run = (...words: string[]) => mayfly.run(["--host", `unix://${daemon.runDir}/mayfly.sock`, ...words]);

  test("what a registry has is pulled and runs as it says", async () => {
    const name = `${registry.host}/app:1`;
    expect((await run("pull", name)).stdout).toBe(`${name}\n`);
    expect((await run("pull", name)).stderr).toContain("is here as it is there");
    expect(await run("run", "--rm", name)).toMatchObject({ stdout: "hello\nfrom the image\n", exitCode: 0 });
    const script = "id -un; ls /etc/release; exit 3";
    expect(await run("run", "--rm", name, "sh", "-c", script)).toMatchObject({ stdout: "alice\n", exitCode: 3 });
    await run("run", "-d", "--name", "busy", name, "sleep", "1000");
    const used = await run("rmi", name);
    expect([used.exitCode, used.stderr.includes("busy runs on it")]).toEqual([125, true]);
    await run("rm", "-f", "busy");
  }, 60_000);

  test("a Dockerfile of two stages on it is built without a network, and runs", async () => {
    const context = newDirectory("context");
    mkdirSync(`${context}/src`);
    writeFileSync(`${context}/src/part`, "part of the context\n");
    writeFileSync(
      `${context}/Dockerfile`,
      `FROM ${registry.host}/app:1 AS made
       USER root
       RUN echo "made by $GREETING" > /made
       FROM ${registry.host}/app:1
       COPY --from=made /made /srv/made
       COPY src/part /srv/
       CMD ["cat", "made", "part"]`,
    );
    const built = await run("build", "-t", "two:1", context);
    expect([built.exitCode, /^sha256:[0-9a-f]{64}\n$/.test(built.stdout)]).toEqual([0, true]);
    expect((await run("run", "--rm", "two:1")).stdout).toBe("made by hello\npart of the context\n");
    expect((await run("images", "-q", "two")).stdout.trim()).toBe(built.stdout.slice("sha256:".length, 19));
    expect((await run("rmi", "two:1")).exitCode).toBe(0);
  }, 60_000);
});
