/** Images whose making is interrupted: the daemon killed in the middle of it, no space left on the disk. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findTool, runTool } from "../../src/sys/tool.ts";
import { soon } from "../support/engine.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, newDirectory, processesMentioning } from "../support/engine-host.ts";
import { openImages, refusal } from "../support/image-store.ts";
import { packed, writeLayout } from "../support/oci-layout.ts";
import { missingRegistryTools, startRegistry, type TestRegistry } from "../support/registry.ts";
import { rootTree, tarballOf } from "../support/rootfs.ts";

const MIB = 2 ** 20;
const missing = [...missingRegistryTools, ...["buildah"].filter((tool) => findTool(tool) === undefined)];
const noTools = missing.length === 0 ? "" : ` (${missing.join(", ")} missing)`;

/** Whether this process may mount. */
const mayMount = Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

/** An image of a root file system with `mebibytes` of data that does not compress, as a layout. */
async function largeImage(mebibytes: number, name: string): Promise<string> {
  const tree = await rootTree();
  const noise = () => Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)));
  const whole = Buffer.concat(Array.from({ length: mebibytes * 16 }, noise));
  writeFileSync(join(tree, "srv/noise"), whole);
  writeFileSync(join(tree, "srv/zeroes"), Buffer.alloc(mebibytes * MIB));
  const layout = newDirectory("layout");
  const layer = new Uint8Array(await Bun.file(await tarballOf(tree)).bytes());
  await writeLayout(layout, [
    { layers: [layer, [{ name: "top", content: "top" }]], name, config: { Cmd: ["/bin/cat", "/top"] } },
  ]);
  return layout;
}

describeVms("an image whose daemon is killed", () => {
  let daemon: TestDaemon;
  let layout = "";

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    layout = await largeImage(48, "large:1");
  }, 90_000);
  afterAll(() => daemon?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    // One failure is enough.
    if (!daemon.isRunning) await daemon.begin();
    for (const { name } of await daemon.client.images.list()) await daemon.client.images.remove(name);
  });

  /** Kills the daemon once `step` is told. What it did fails for the client, and its programs end with it. */
  async function killedAt(
    step: RegExp,
    work: (onProgress: (step: string) => void) => Promise<unknown>,
    kept: string[] = [],
  ): Promise<void> {
    const dead = Promise.withResolvers<void>();
    let told = false;
    const onProgress = (text: string) => {
      if (told || !step.test(text)) return;
      told = true;
      daemon.kill().then(dead.resolve, dead.reject);
    };
    const ended = await work(onProgress).then(
      () => "done",
      () => "failed",
    );
    expect([told, ended]).toEqual([true, "failed"]);
    await dead.promise;
    const deadline = soon(10_000);
    while (processesMentioning(daemon.stateDir).size > 0 && deadline.remainingMs > 0) await Bun.sleep(10);
    expect([...processesMentioning(daemon.stateDir).values()]).toEqual([]);
    expect(readdirSync(`${daemon.stateDir}/images/sha256`).some((name) => name.startsWith("."))).toBe(true);
    await daemon.begin();
    const { stdout } = await runTool(["sh", "-c", "ls -A images/sha256 images/locks"], { cwd: daemon.stateDir });
    expect(stdout.split("\n").filter((line) => /^\.|^[0-9a-f]{64}$/.test(line))).toHaveLength(kept.length);
    expect((await daemon.client.images.list()).map(({ name }) => name)).toEqual(kept);
  }

  test.each([/^unpacking layer 1 of 2/, /^packing/])(
    "at %p leaves nothing, and the next daemon makes it",
    async (step) => {
      await killedAt(step, (onProgress) => daemon.client.images.load({ path: layout }, { onProgress }));
      const [image] = await daemon.client.images.load({ path: layout });
      expect(image?.name).toBe("docker.io/library/large:1");
      await daemon.restart();
      expect(await daemon.client.images.list()).toEqual([image].flatMap((there) => there ?? []));
      await daemon.client.images.remove("large:1");
    },
    60_000,
  );

  test("while an archive is sent", async () => {
    const archive = await packed(layout, `${layout}.tar`);
    let sent = 0;
    const content = (async function* () {
      for await (const chunk of Bun.file(archive).stream()) {
        yield chunk;
        sent += chunk.length;
        if (sent > 20 * MIB && daemon.isRunning) await daemon.kill();
      }
    })();
    expect((await refusal(daemon.client.images.send(content))).kind).toBe("unavailable");
    await daemon.begin();
    expect(readdirSync(`${daemon.stateDir}/images/sha256`)).toEqual([]);
    const [image] = await daemon.client.images.send(Bun.file(archive).stream());
    expect(image?.name).toBe("docker.io/library/large:1");
    await daemon.client.images.remove("large:1");
  }, 60_000);

  test.skipIf(missing.length > 0)(
    `while it is pulled, or built${noTools}`,
    async () => {
      await using registry: TestRegistry = await startRegistry({ directory: newDirectory("registry") });
      await registry.push(`oci:${layout}:large:1`, "large:1");
      const reference = `${registry.host}/large:1`;
      await killedAt(/^fetching/, (onProgress) => daemon.client.images.pull({ reference }, { onProgress }));
      const { image } = await daemon.client.images.pull({ reference });
      expect(image.name).toBe(reference);
      await daemon.client.images.remove(reference);
      const context = newDirectory("context");
      writeFileSync(
        `${context}/Dockerfile`,
        `FROM scratch\nCOPY --from=${reference} / /\nRUN echo begun && sleep 1000`,
      );
      const build = (onProgress: (step: string) => void) => daemon.client.images.build({ context }, { onProgress });
      await killedAt(/STEP 3/, build, [reference]);
      writeFileSync(`${context}/Dockerfile`, `FROM scratch\nCOPY --from=${reference} / /\nRUN echo works > /works`);
      const [built] = await daemon.client.images.build({ context });
      expect(built?.name).toBe("<none>");
    },
    120_000,
  );
});

describeVms("a full disk", () => {
  const limited = mayMount && missing.length === 0 ? test : test.skip;

  limited(
    `refuses what does not fit, leaves nothing of it, and takes it when there is space${noTools}`,
    async () => {
      const work = newDirectory("full");
      const state = join(work, "state");
      mkdirSync(state);
      const layout = await largeImage(24, "large:1");
      const archive = await packed(layout, `${layout}.tar`);
      await using registry = await startRegistry({ directory: newDirectory("registry") });
      await registry.push(`oci:${layout}:large:1`, "large:1");
      const context = newDirectory("context");
      writeFileSync(`${context}/Dockerfile`, "FROM scratch\nCOPY data /data\n");
      writeFileSync(`${context}/data`, Buffer.alloc(90 * MIB, 1));
      // The reserve that every import leaves is 64 MiB.
      await runTool(["mount", "-t", "tmpfs", "-o", "size=400m,mode=711", "mayfly-test", state]);
      try {
        await using store = await openImages(work);
        const { operations } = store;
        const filler = join(state, "filler");
        const leave = (mebibytes: number) => {
          rmSync(filler, { force: true });
          const { bavail, bsize } = statfsSync(state);
          writeFileSync(filler, Buffer.alloc(Math.max(0, bavail * bsize - mebibytes * MIB)));
        };
        const reference = `${registry.host}/large:1`;
        const ways: [what: string, mebibytes: number, work: () => Promise<unknown>][] = [
          ["a layout: its tree", 100, () => operations.load({ path: layout }, store.options())],
          ["an archive: its blobs", 80, () => operations.load({ path: archive }, store.options())],
          ["an archive that is sent", 20, () => operations.receive(Bun.file(archive).stream())],
          ["a pull: known beforehand", 80, () => operations.pull({ reference }, store.options())],
          ["a pull: its tree", 130, () => operations.pull({ reference }, store.options())],
          ["a build", 130, () => operations.build({ context }, store.options())],
        ];
        for (const [what, mebibytes, attempt] of ways) {
          leave(mebibytes);
          const error = await refusal(attempt());
          expect([what, error.code]).toEqual([what, "disk_full"]);
          expect(await store.stored()).toEqual([]);
          expect(existsSync(`${state}/images/sha256`) ? readdirSync(`${state}/images/sha256`) : []).toEqual([]);
          expect(store.images.list()).toEqual([]);
          await store.images.prune(false);
        }
        rmSync(filler);
        const { image } = await operations.pull({ reference }, store.options());
        expect(image.name).toBe(reference);
      } finally {
        await runTool(["umount", "-l", state]);
      }
    },
    120_000,
  );
});
