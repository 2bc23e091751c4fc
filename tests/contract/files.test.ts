/** Files of a running VM through the engine. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { soon, TestEngine, textOf } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

async function* pieces(...parts: (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) yield Buffer.from(part as string);
}

describeVms("files in a VM", () => {
  let vms: TestEngine;
  let vm: string;

  beforeAll(async () => {
    vms = await TestEngine.open();
    vm = (await vms.start()).id;
    await vms.exec(vm, ["true"]);
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => expect(await vms.leftBehind()).toEqual(NOTHING_LEFT));

  const write = (path: string, content: AsyncIterable<Uint8Array>, options = {}) =>
    vms.engine.writeFile(vm, path, content, {
      ...{ mode: 0o644, uid: 0, gid: 0, parents: false, deadline: soon() },
      ...options,
    });
  const read = async (path: string) => textOf((await vms.engine.readFile(vm, path, soon())).content);

  test("are written with owner and mode, and read back", async () => {
    await write("/srv/a/b/file", pieces("one ", "two"), { mode: 0o600, uid: 12, gid: 34, parents: true });
    expect(await vms.shell(vm, "cat /srv/a/b/file; stat -c ' %a %u:%g' /srv/a/b/file")).toBe("one two 600 12:34");
    expect(await read("/srv/a/b/file")).toBe("one two");
    const { stat } = await vms.engine.readFile(vm, "/srv/a/b/file", soon());
    expect(stat).toMatchObject({ name: "file", type: "file", mode: 0o600, uid: 12, gid: 34, size: 7 });
  });

  test("of 16 MiB come back as they were", async () => {
    const content = Buffer.alloc(16 << 20);
    for (let at = 0; at < content.length; at += 65_536) crypto.getRandomValues(content.subarray(at, at + 65_536));
    const parts: Uint8Array[] = [];
    for (let at = 0; at < content.length; at += 1 << 20) parts.push(content.subarray(at, at + (1 << 20)));
    await write("/tmp/large", pieces(...parts));
    const hash = new Bun.CryptoHasher("sha256");
    for await (const part of (await vms.engine.readFile(vm, "/tmp/large", soon())).content) hash.update(part);
    expect(hash.digest("hex")).toBe(new Bun.CryptoHasher("sha256").update(content).digest("hex"));
    await vms.engine.removeFile(vm, "/tmp/large", { recursive: false, deadline: soon() });
  });

  test("whose source fails do not appear", async () => {
    const failing = (async function* () {
      yield Buffer.from("half");
      throw new Error("the source broke");
    })();
    await expect(write("/tmp/half", failing)).rejects.toThrow("the source broke");
    expect(await vms.shell(vm, "ls -A /tmp")).toBe("");
  });

  test("whose reader leaves do not hold the others up", async () => {
    await vms.shell(vm, "dd if=/dev/zero of=/tmp/zeroes bs=1M count=8 2>/dev/null");
    const { content } = await vms.engine.readFile(vm, "/tmp/zeroes", soon());
    for await (const part of content) {
      expect(part.length).toBeGreaterThan(0);
      break;
    }
    expect(await vms.shell(vm, "echo fine; rm /tmp/zeroes")).toBe("fine");
  });

  test("are listed, described and removed", async () => {
    await vms.engine.makeDirectory(vm, "/srv/d/e", { parents: true, mode: 0o750, deadline: soon() });
    await vms.shell(vm, "cd /srv/d; echo x > f; ln -s f l; mkfifo p; mknod c c 1 3");
    const list = await vms.engine.listFiles(vm, "/srv/d", soon());
    expect(list.map(({ name, type }) => `${name} ${type}`)).toEqual([
      "c character",
      "e directory",
      "f file",
      "l symlink",
      "p fifo",
    ]);
    expect(await vms.engine.statFile(vm, "/srv/d/l", soon())).toMatchObject({ type: "symlink", target: "f" });
    expect(await vms.engine.statFile(vm, "/srv/d/e", soon())).toMatchObject({ type: "directory", mode: 0o750 });
    const remove = (path: string, recursive: boolean) =>
      vms.engine.removeFile(vm, path, { recursive, deadline: soon() });
    expect((await rejection(remove("/srv/d", false))).code).toBe("file_operation_failed");
    await remove("/srv/d", true);
    expect((await rejection(vms.engine.statFile(vm, "/srv/d", soon()))).code).toBe("file_not_found");
  });

  test("that are not there, or are something else, are typed errors", async () => {
    expect((await rejection(read("/no/such/file"))).code).toBe("file_not_found");
    expect((await rejection(read("/tmp"))).code).toBe("file_operation_failed");
    expect((await rejection(write("/no/such/dir/file", pieces("x")))).code).toBe("file_not_found");
    expect((await rejection(vms.engine.listFiles(vm, "/etc/passwd", soon()))).code).toBe("file_operation_failed");
    expect((await rejection(vms.engine.readFile("nobody", "/etc/passwd", soon()))).code).toBe("vm_not_found");
  });

  test("of a thousand entries are all listed", async () => {
    await vms.shell(vm, "mkdir /tmp/many; cd /tmp/many; seq 1000 1999 | xargs touch");
    const names = (await vms.engine.listFiles(vm, "/tmp/many", soon())).map(({ name }) => name);
    expect(names).toEqual(Array.from({ length: 1000 }, (_, index) => String(1000 + index)));
    await vms.engine.removeFile(vm, "/tmp/many", { recursive: true, deadline: soon() });
  });
});
