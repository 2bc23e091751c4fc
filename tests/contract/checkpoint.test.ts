/** Checkpoints: a VM's state on disk, from which it comes back as it was, and from which others go on. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { NO_NAME } from "../../src/contract/api.ts";
import { serviceImage, serviceTarball } from "../support/application.ts";
import { COUNTER, numbersOf } from "../support/counting.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("checkpoints", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open();
    await vms.remove((await vms.start()).id);
    vms.markDescriptors();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    for (const { id } of vms.engine.snapshots.list()) await vms.engine.snapshots.remove(id);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("a counter goes on, is restored where it was, and goes on in clones", async () => {
    const { snapshots } = vms.engine;
    const vm = await vms.start({ command: COUNTER, name: "counter" });
    const snapshot = await snapshots.checkpoint("counter", { name: "first" }, soon());
    expect(snapshot).toMatchObject({ name: "first", kind: "checkpoint", vmId: vm.id, vmName: "counter", origin: null });
    expect((await rejection(snapshots.restore("first", soon()))).code).toBe("vm_running");
    const clone = await vms.start({ snapshot: "first", name: "clone" });
    expect(clone).toMatchObject({ name: "clone", hostname: "clone", origin: { kind: "snapshot", id: snapshot.id } });
    const [inClone = 0] = await numbersOf(vms, "clone", 3);
    expect(inClone).toBeGreaterThan(0);
    await vms.remove("counter");
    const restored = await snapshots.restore("first", soon());
    expect(restored).toMatchObject({ id: vm.id, name: "counter", state: "running" });
    const [again] = await numbersOf(vms, "counter", 3);
    expect(again).toBe(inClone);
    expect(await vms.shell("counter", "hostname")).toBe("counter");
    expect(await snapshots.verify("first", soon())).toEqual({ id: snapshot.id, ok: true, problems: [] });
  });

  /** A VM that holds so many MiB of random bytes in its memory. @returns their checksum. */
  const holder = async (name: string, mib: number) => {
    await vms.start({ command: COUNTER, name });
    return vms.shell(name, `head -c ${mib << 20} /dev/urandom > /dev/shm/data; sha256sum < /dev/shm/data`);
  };
  const sumOf = (ref: string) => vms.shell(ref, "sha256sum < /dev/shm/data");

  test("moves as a file: everything removed, imported and restored, it has what it had", async () => {
    const { snapshots } = vms.engine;
    const sum = await holder("holder", 8);
    const { id, templateId } = await snapshots.checkpoint("holder", { name: "moved" }, soon());
    const path = `${newDirectory("archive")}/moved.mayfly`;
    await snapshots.export("moved", { path }, { deadline: soon() });
    expect((await rejection(snapshots.export("moved", { path }, { deadline: soon() }))).code).toBe(
      "file_operation_failed",
    );
    expect((await rejection(vms.engine.removeTemplate(templateId, { force: true }))).message).toContain(
      "snapshot moved",
    );
    await vms.remove("holder");
    await snapshots.remove("moved");
    await vms.engine.removeTemplate(templateId, { force: false });
    const imported = await snapshots.import({ path, name: "back" }, { deadline: soon() });
    expect(imported).toMatchObject({ id, name: "back", templateId, vmName: "holder" });
    expect((await rejection(snapshots.import({ path }, { deadline: soon() }))).code).toBe("name_in_use");
    expect(await snapshots.restore("back", soon())).toMatchObject({ name: "holder", state: "running" });
    expect(await sumOf("holder")).toBe(sum);
    // What came along is that snapshot's: a VM that asks for a size gets none of it.
    const kinds = (await snapshots.tree()).map(({ kind, parentId }) => `${kind} ${parentId === null ? "root" : ""}`);
    expect(kinds).toEqual(["template root", "vm ", "snapshot "]);
    await vms.remove("holder");
    await snapshots.remove("back");
    expect(vms.engine.listTemplates()).toEqual([]);
    await vms.remove((await vms.start()).id);
  });

  test("in the tree memory is shared that the template has and nobody has copied, however much else was written", async () => {
    const before = vms.engine.listTemplates()[0]?.memory.allocatedBytes ?? 0;
    await holder("holder", 40);
    await vms.engine.snapshots.checkpoint("holder", { name: "kept" }, soon());
    await vms.start({ snapshot: "kept", name: "clone" });
    const nodes = (await vms.engine.snapshots.tree()).filter(({ kind }) => kind !== "template");
    expect(nodes.map(({ name }) => name)).toEqual(["holder", "kept", "clone"]);
    for (const { uniqueBytes, sharedBytes } of nodes) {
      expect(uniqueBytes).toBeGreaterThan(40 << 20);
      // The files' bytes went where the template has holes.
      expect(sharedBytes).toBeGreaterThan(before / 2);
      expect(sharedBytes).toBeLessThan(before);
    }
  });

  test("two clones are two VMs: ids and random numbers differ; one with restart policy starts from it again", async () => {
    const { snapshots } = vms.engine;
    const sum = await holder("holder", 4);
    await snapshots.checkpoint("holder", { name: "point" }, soon());
    const env = { TOKEN: "a" };
    const clones = [await vms.start({ snapshot: "point", env }), await vms.start({ snapshot: "point" })];
    const texts = clones.map(({ id }) => vms.shell(id, "cat /etc/machine-id /proc/sys/kernel/random/uuid; hostname"));
    expect(new Set((await Promise.all(texts)).flatMap((text) => text.split("\n"))).size).toBe(6);
    expect(await vms.shell(clones[0]?.id ?? "", "cat /run/mayfly/environment")).toBe("TOKEN=a");
    for (const { id } of clones) expect(await sumOf(id)).toBe(sum);
    const again = await vms.start({ snapshot: "point", name: "again", restart: { name: "always" } });
    const refused = await rejection(snapshots.remove("point"));
    expect(refused).toMatchObject({ code: "snapshot_in_use" });
    expect(refused.message).toContain("VM again");
    const isBack = Promise.withResolvers<void>();
    const stop = vms.engine.subscribe(({ id, type }) => id === again.id && type === "vm.running" && isBack.resolve());
    process.kill(again.pid ?? 0, "SIGKILL");
    await isBack.promise;
    stop();
    expect(await sumOf("again")).toBe(sum);
    expect(await vms.shell("again", "hostname")).toBe("again");
    for (const request of [{ command: ["true"] }, { image: "x" }, { memoryBytes: 2 ** 40 }, { template: "x" }]) {
      expect((await rejection(vms.start({ snapshot: "point", ...request }))).code).toBe("invalid_argument");
    }
    expect((await rejection(vms.start({ snapshot: "nothing" }))).code).toBe("snapshot_not_found");
  });

  test("one that was promoted is a template, whose clones share all of it", async () => {
    const { snapshots } = vms.engine;
    const sum = await holder("holder", 8);
    const { id } = await snapshots.checkpoint("holder", { name: "big" }, soon());
    const before = await vms.start({ snapshot: "big" });
    const { promotedTo } = await snapshots.promote("big", { deadline: soon() });
    expect((await snapshots.promote("big", { deadline: soon() })).promotedTo).toBe(promotedTo);
    const clone = await vms.start({ snapshot: id });
    expect(clone).toMatchObject({ templateId: promotedTo, origin: { id } });
    expect(await sumOf(clone.id)).toBe(sum);
    expect(await sumOf(before.id)).toBe(sum);
    const bytes = async (ref: string) => (await vms.engine.statsVm(ref, soon())).guestUniqueMemoryBytes;
    expect((await bytes(before.id)) - (await bytes(clone.id))).toBeGreaterThan(6 << 20);
    const child = (await vms.engine.snapshots.fork(clone.id, {}, soon())).vmIds[0] ?? "";
    expect(await sumOf(child)).toBe(sum);
    expect((await rejection(vms.start({ template: promotedTo ?? "" }))).code).toBe("invalid_argument");
    await snapshots.remove("big");
    const hasPromoted = () => vms.engine.listTemplates().some((template) => template.id === promotedTo);
    expect(hasPromoted()).toBe(true);
    const gone = Promise.withResolvers<void>();
    const stop = vms.engine.subscribe(({ type, id: of }) => {
      if (type === "template.removed" && of === promotedTo) gone.resolve();
    });
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    await soon().race(gone.promise, "the end of the template that nobody needs").finally(stop);
    expect(hasPromoted()).toBe(false);
  });

  test("one whose clones have copied more than a template of its own takes is promoted by itself", async () => {
    const { snapshots } = vms.engine;
    const sum = await holder("holder", 30);
    const { id, promotedTo } = await snapshots.checkpoint("holder", {}, soon());
    expect(promotedTo).toBeNull();
    await vms.remove("holder");
    const promoted = Promise.withResolvers<void>();
    const stop = vms.engine.subscribe(
      (event) => event.id === id && event.type === "snapshot.promoted" && promoted.resolve(),
    );
    const first = await vms.start({ snapshot: id });
    const others = [await vms.start({ snapshot: id }), await vms.start({ snapshot: id })];
    await soon().race(promoted.promise, "the promotion");
    stop();
    const last = await vms.start({ snapshot: id });
    expect(last.templateId).toBe(snapshots.get(id).promotedTo ?? "");
    expect(first.templateId).not.toBe(last.templateId);
    for (const vm of [first, ...others, last]) expect(await sumOf(vm.id)).toBe(sum);
    // Five guests that sum up 30 MiB each: on a busy machine that takes its time.
  }, 180_000);

  test("while its guest writes as fast as it can, nothing of it is torn", async () => {
    const { snapshots } = vms.engine;
    // A file that is renamed is never empty, as one that is written over is for a moment.
    const once = "i=$((i + 1)); echo $i > /dev/shm/n; mv /dev/shm/n /dev/shm/a; cp /dev/shm/a /dev/shm/b";
    const writes = `i=0; while :; do ${once}; done`;
    await vms.start({ name: "writer", command: ["/bin/sh", "-c", writes] });
    await vms.shell("writer", "until [ -s /dev/shm/b ]; do usleep 10000; done");
    await Promise.all([1, 2].map((n) => snapshots.checkpoint("writer", { name: `w${n}` }, soon())));
    for (const name of ["w1", "w2"]) {
      await vms.start({ snapshot: name, name });
      expect(await vms.shell(name, "cat /dev/shm/a | wc -l")).toBe("1");
      expect((await snapshots.verify(name, soon())).problems).toEqual([]);
    }
    const diff = await snapshots.diff("w2", { from: "w1" }, soon());
    expect(diff.pages).toBeGreaterThan(0);
    expect(diff.ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(diff.pages * 4096);
  });

  test("files that were changed are told, of the image and between two, and nothing of the VM runs for that", async () => {
    const { snapshots } = vms.engine;
    const image = await serviceImage(vms);
    for (const diskBytes of [undefined, 64 << 20]) {
      const disk = diskBytes === undefined ? {} : { diskBytes };
      await vms.start({ name: "files", image, command: ["/bin/main"], pull: "never", ...disk });
      await vms.shell("files", "echo 1 > /one; echo 1 > /both; mkdir /made; echo 1 > /made/one");
      await snapshots.checkpoint("files", { name: "before" }, soon());
      await vms.shell("files", "rm /one; echo 2 > /both; echo 2 > /made/two; rm /bin/busybox");
      await snapshots.checkpoint("files", { name: "after" }, soon());
      const changed = async (name: string, from?: string) => {
        const { files = [] } = await snapshots.diff(name, { ...(from && { from }), files: true }, soon());
        // What it writes by itself is below /tmp.
        return files.filter(({ path }) => !path.startsWith("/tmp")).map(({ kind, path }) => `${kind} ${path}`);
      };
      const events: string[] = [];
      const stop = vms.engine.subscribe(({ type }) => void events.push(type));
      expect(await changed("before")).toEqual(["added /both", "added /made", "added /made/one", "added /one"]);
      expect(await changed("after", "before")).toEqual([
        "changed /bin",
        "deleted /bin/busybox",
        "changed /both",
        "added /made/two",
        "deleted /one",
      ]);
      stop();
      expect(events.filter((type) => type.startsWith("vm."))).toEqual([]);
      await vms.remove("files");
      for (const name of ["before", "after"]) await snapshots.remove(name);
    }
    await vms.start({ name: "imageless" });
    await snapshots.checkpoint("imageless", { name: "bare" }, soon());
    const refused = await rejection(snapshots.diff("bare", { files: true }, soon()));
    expect(refused.code).toBe("invalid_argument");
  }, 120_000);

  test("an image moves along; without it the very same one has to be there", async () => {
    const { snapshots } = vms.engine;
    const [image, directory] = [await serviceImage(vms, { "etc/here": "moved" }), newDirectory("archive")];
    await vms.start({ name: "old", image, command: ["/bin/main"], pull: "never" });
    await vms.shell("old", "echo kept > /file");
    const { templateId } = await snapshots.checkpoint("old", { name: "kept" }, soon());
    const [whole, part] = [`${directory}/whole`, `${directory}/part`];
    await snapshots.export("kept", { path: whole }, { deadline: soon() });
    await snapshots.export("kept", { path: part, image: false }, { deadline: soon() });
    await vms.remove("old");
    await snapshots.remove("kept");
    await vms.engine.removeTemplate(templateId, { force: false });
    await vms.engine.removeImage(image);
    const without = await rejection(snapshots.import({ path: part }, { deadline: soon() }));
    expect(without).toMatchObject({ code: "image_not_found" });
    expect(vms.engine.listTemplates().map(({ id }) => id)).not.toContain(templateId);
    const imported = await snapshots.import({ path: whole, name: "back" }, { deadline: soon() });
    const digests = vms.engine.listImages().map(({ name, digest }) => `${name} ${digest}`);
    expect(digests.some((text) => text.startsWith(`${image} `))).toBe(false);
    await snapshots.restore("back", soon());
    expect(await vms.shell("old", "cat /file /etc/here")).toBe("kept\nmoved");
    const { digest = "" } = vms.engine.listImages().find(({ name }) => name === NO_NAME) ?? {};
    expect((await rejection(vms.engine.removeImage(digest))).message).toContain("snapshot back, VM old need it");
    // By now it is here, and is not taken in twice.
    await snapshots.remove("back");
    const again = await snapshots.import({ path: part, name: "again" }, { deadline: soon() });
    expect(again.id).toBe(imported.id);
    expect(vms.engine.listImages().map(({ name, digest }) => `${name} ${digest}`)).toEqual(digests);
    await vms.remove("old");
    await snapshots.restore("again", soon());
    expect(await vms.shell("old", "cat /file /etc/here")).toBe("kept\nmoved");
  }, 120_000);

  test("a disk of its own moves along, whole: what was written to it and what was below it", async () => {
    const { snapshots } = vms.engine;
    const [image, directory] = [await serviceImage(vms, { "etc/here": "moved" }), newDirectory("archive")];
    const request = { image, command: ["/bin/main"], diskBytes: 64 << 20, pull: "never" as const };
    await vms.start({ name: "old", ...request });
    await vms.shell(
      "old",
      "head -c 9m /dev/urandom > /data; rm /etc/here; echo 1 > /gone; sync; rm /gone; df / > /before",
    );
    const sum = await vms.shell("old", "sha256sum < /data");
    const { templateId } = await snapshots.checkpoint("old", { name: "kept" }, soon());
    const [first, second] = [`${directory}/first`, `${directory}/second`];
    await snapshots.export("kept", { path: first }, { deadline: soon() });
    await vms.remove("old");
    await snapshots.remove("kept");
    await vms.engine.removeTemplate(templateId, { force: false });
    await vms.engine.removeImage(image);
    await vms.engine.prune(soon());
    await snapshots.import({ path: first, name: "back" }, { deadline: soon() });
    expect((await snapshots.verify("back", soon())).problems).toEqual([]);
    await vms.start({ snapshot: "back", name: "clone" });
    await snapshots.restore("back", soon());
    for (const name of ["clone", "old"]) {
      // Nothing of the disk is left in memory then.
      await vms.engine.refreshVm(name, soon());
      expect(await vms.shell(name, "sha256sum < /data; ls /etc/here /gone 2>&1 | wc -l")).toBe(`${sum}\n2`);
      // Each writes to its own.
      await vms.shell(name, `head -c 5m /dev/urandom > /more; echo ${name} > /name; sync`);
    }
    await snapshots.checkpoint("old", { name: "later" }, soon());
    await snapshots.export("later", { path: second }, { deadline: soon() });
    const { vmIds } = await snapshots.fork("clone", { namePrefix: "fork" }, soon());
    for (const id of vmIds) expect(await vms.shell(id, "cat /name; sha256sum < /data")).toBe(`clone\n${sum}`);
    for (const { id } of vms.engine.listVms()) await vms.remove(id);
    await snapshots.remove("later");
    await snapshots.import({ path: second, name: "later" }, { deadline: soon() });
    await snapshots.restore("later", soon());
    expect(await vms.shell("old", "cat /name; sha256sum < /data")).toBe(`old\n${sum}`);
  }, 120_000);

  test("with a directory of this host it does not move", async () => {
    const [image, source] = [await serviceImage(vms), newDirectory("source")];
    const mount = { source: { directory: source }, target: "/there", readOnly: true };
    await vms.start({ name: "bound", image, command: ["/bin/main"], pull: "never", volumes: [mount] });
    await vms.engine.snapshots.checkpoint("bound", { name: "bound" }, soon());
    const exported = vms.engine.snapshots.export("bound", { path: `${source}/file` }, { deadline: soon() });
    expect(await rejection(exported)).toMatchObject({ code: "not_capturable", details: { slot: "volume0" } });
  });

  test("an image that has lost its name to another stays for the snapshot that needs it, over a restart too", async () => {
    const first = await serviceTarball();
    const second = await serviceTarball({ "etc/other": "another" });
    const take = (path: string) => vms.engine.importImage({ name: "moving", path }, { deadline: soon(60_000) });
    await take(first);
    await vms.start({ name: "old", image: "moving", command: ["/bin/main"], pull: "never" });
    await vms.engine.snapshots.checkpoint("old", { name: "kept" }, soon());
    await vms.remove("old");
    await take(second);
    vms = await vms.reopen();
    await vms.engine.snapshots.restore("kept", soon());
    expect(await vms.shell("old", "ls /etc")).not.toContain("other");
    vms.markDescriptors();
  }, 120_000);
});
