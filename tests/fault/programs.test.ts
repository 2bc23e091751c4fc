/** Programs that are missing or broken: QEMU and the launcher. */
import { afterEach, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { HostArtifacts } from "../../src/contract/machine.ts";
import { openEngine } from "../../src/engine/open.ts";
import { TestEngine } from "../support/engine.ts";
import { describeVms, hostArtifacts, newDirectory, noteGroup } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { withLauncher } from "../support/faulty-artifacts.ts";

describeVms("a program", () => {
  let vms: TestEngine | undefined;
  afterEach(async () => {
    expect(await vms?.leftBehind()).toEqual(NOTHING_LEFT);
    await vms?.[Symbol.asyncDispose]();
    vms = undefined;
  });

  const withQemu = (path: string): HostArtifacts => {
    const artifacts = hostArtifacts();
    return { ...artifacts, qemu: artifacts.qemu.map((qemu) => ({ ...qemu, path })) };
  };
  /** The error of a clone. The template fits, since its fingerprint is made of what the artifacts say. */
  const failure = async (artifacts: HostArtifacts) => {
    vms = await TestEngine.open({ artifacts });
    return rejection(vms.run(["true"], {}, 20_000));
  };

  test("QEMU that is not there is an error that names it", async () => {
    const error = await failure(withQemu("/no/such/qemu"));
    expect({ code: error.code, named: error.message.includes("/no/such/qemu") }).toEqual({
      code: "qemu_not_found",
      named: true,
    });
  });

  test("no QEMU at all is an error when the engine is opened", async () => {
    const root = newDirectory("none");
    const directories = { stateDir: join(root, "state"), runDir: join(root, "run") };
    noteGroup(directories.stateDir);
    const opening = openEngine({ ...directories, artifacts: { ...hostArtifacts(), qemu: [] }, accelerator: "tcg" });
    expect((await rejection(opening)).code).toBe("qemu_not_found");
    // The directory is free again.
    vms = await TestEngine.open({ ...directories });
    expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
  });

  test("a launcher that is not there is an error that names it", async () => {
    const error = await failure({ ...hostArtifacts(), launcher: { path: "/no/such/launcher" } });
    expect({ code: error.code, named: error.message.includes("/no/such/launcher") }).toEqual({
      code: "qemu_spawn_failed",
      named: true,
    });
  });

  test("a launcher that fails is an error with its exit code and last words", async () => {
    const error = await failure(withLauncher("echo cannot launch today >&2; exit 42"));
    expect(error).toMatchObject({ code: "qemu_exited", details: { exitCode: 42 } });
    expect(error.details.stderrTail).toContain("cannot launch today");
    expect(error.message).toContain("cannot launch today");
  });

  test("a QEMU that kills itself before it reads its state is an error with its signal", async () => {
    const error = await failure(withLauncher("kill -SEGV $$"));
    expect(error).toMatchObject({ code: "qemu_exited", details: { signal: "SIGSEGV" } });
  });

  test("a QEMU that ends in the middle of its state is an error", async () => {
    const error = await failure(withLauncher("head -c 1000 <&5 >/dev/null; exit 1"));
    expect(error).toMatchObject({ code: "qemu_exited", details: { exitCode: 1 } });
  });

  test("a launcher that fails now and then is used again", async () => {
    const flag = join(newDirectory("flag"), "once");
    vms = await TestEngine.open({
      // The program that is kept for forks is started with the engine.
      artifacts: withLauncher(`[ "$1" = --fork ] || [ -e ${flag} ] || { : > ${flag}; exit 1; }\nexec "$LAUNCHER" "$@"`),
    });
    expect((await rejection(vms.run(["true"]))).code).toBe("qemu_exited");
    expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
  });

  for (const pool of [
    { blocked: 2, warm: 0, parent: false },
    { blocked: 1, warm: 1 },
  ]) {
    test(`a broken QEMU is not started over and over for a pool of ${pool.blocked} blocked and ${pool.warm} warm`, async () => {
      const log = join(newDirectory("starts"), "log");
      const artifacts = withLauncher(`echo start >> ${log}; exit 1`);
      vms = await TestEngine.open({ artifacts, pool, waitForPools: false });
      await Bun.sleep(1_000);
      const starts = readFileSync(log, "utf8").split("\n").length - 1;
      expect(starts).toBeGreaterThan(0);
      expect(starts).toBeLessThan(20);
    });
  }
});
