/** Root file systems: erofs and ext4 images, imported tarballs, and the overlay over them. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync } from "node:fs";
import { sha256File } from "../../src/sys/publish.ts";
import { soon, TestEngine, textOf } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { addOddities, erofsOf, ext4Of, rootTree, tarballOf } from "../support/rootfs.ts";

describeVms("a root file system", () => {
  let vms: TestEngine;
  let tree: string;

  beforeAll(async () => {
    vms = await TestEngine.open();
    tree = await rootTree();
    await addOddities(tree);
    await vms.run(["true"]);
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => expect(await vms.leftBehind()).toEqual(NOTHING_LEFT));

  for (const { name, make } of [
    { name: "an erofs image", make: () => erofsOf(tree) },
    { name: "an ext4 image", make: () => ext4Of(tree) },
  ]) {
    describe(`from ${name}`, () => {
      let rootfs: string;
      beforeAll(async () => {
        rootfs = await make();
      });

      test("is what commands see", async () => {
        const script =
          "cat /etc/release; ls /lib /mnt 2>/dev/null; mount | grep -E ' on /(proc|sys|dev|tmp)? ' | cut -d' ' -f3";
        const { stdout, vm } = await vms.run(["sh", "-c", script], { rootfs });
        expect(stdout.split("\n")[0]).toBe("a root of its own");
        expect(stdout).toContain("/proc");
        expect(vm.rootfs).toBe(rootfs);
        expect(vm.clone.path).toBe("cold");
      });

      test("can be written, and what was written is gone afterwards", async () => {
        const digest = await sha256File(rootfs);
        const script =
          "echo new > /srv/new; echo changed > /etc/release; rm /etc/passwd; mkdir /deep; cat /srv/new /etc/release; ls /etc";
        const { stdout } = await vms.run(["sh", "-c", script], { rootfs });
        expect(stdout).toContain("new\nchanged\n");
        expect(stdout).not.toContain("passwd");
        expect(await vms.script("cat /etc/release; ls /srv; ls -d /etc/passwd", { rootfs })).toBe(
          "a root of its own\n/etc/passwd",
        );
        expect(await sha256File(rootfs)).toBe(digest);
      });

      test("serves several VMs at once", async () => {
        const script = "echo $0 > /srv/mine; sleep 0.2; cat /srv/mine";
        const made = ["one", "two", "three"].map((word) => vms.run(["sh", "-c", script, word], { rootfs }));
        expect((await Promise.all(made)).map(({ stdout }) => stdout)).toEqual(["one\n", "two\n", "three\n"]);
      });

      test("has the VM's machine id, name and file interface", async () => {
        const vm = await vms.start({ rootfs, hostname: "rooted" });
        expect(await vms.shell(vm.id, "cat /etc/machine-id; hostname")).toMatch(/^[0-9a-f]{32}\nrooted$/);
        const { content } = await vms.engine.readFile(vm.id, "/etc/release", soon());
        expect(await textOf(content)).toBe("a root of its own\n");
        await vms.remove(vm.id);
      });
    });
  }

  describe("from an imported tarball", () => {
    beforeAll(async () => {
      const path = await tarballOf(tree);
      await vms.engine.importImage({ name: "odd", path }, { deadline: soon() });
    });

    test("keeps owners, modes, times, links, devices and attributes", async () => {
      const script = `
        cd /odd
        stat -c '%n %a %u:%g %F %h %s' owned suid one sticky empty fifo 'a name with spaces'
        stat -c '%n %F %t:%T' null loop
        stat -c '%Y' owned
        [ $(stat -c %i one) = $(stat -c %i two) ] && echo one file
        ls -l link dangling | cut -d'>' -f2
        xattr owned user.mayfly
        cat link
      `;
      expect((await vms.script(script, { rootfs: "odd" })).split("\n")).toEqual([
        "owned 640 1234:4321 regular file 1 6",
        "suid 6755 0:0 regular file 1 5",
        "one 644 0:0 regular file 2 7",
        "sticky 1777 0:0 directory 2 27",
        "empty 644 0:0 regular empty file 1 0",
        "fifo 644 0:0 fifo 1 0",
        "a name with spaces 644 0:0 regular file 1 7",
        "null character special file 1:3",
        "loop block special file 7:9",
        "1000000000",
        "one file",
        " /no/such/place",
        " ../etc/release",
        "kept value",
        "a root of its own",
      ]);
    });

    test("is listed, and removed once no VM runs on it", async () => {
      const [image] = vms.engine.listImages();
      expect(image?.name).toBe("odd");
      expect(image?.fstype).toBe("erofs");
      const vm = await vms.start({ rootfs: "odd" });
      expect((await rejection(vms.engine.removeImage("odd"))).code).toBe("resource_in_use");
      expect(await vms.shell(vm.id, "cat /odd/owned; sha256sum /bin/busybox | wc -l")).toBe("owned\n1");
      await vms.remove(vm.id);
      await vms.engine.removeImage("odd");
      expect((await rejection(vms.run(["true"], { rootfs: "odd" }))).code).toBe("image_not_found");
    });
  });

  test("must be one", async () => {
    const code = async (rootfs: string) => (await rejection(vms.run(["true"], { rootfs }))).code;
    expect(await code("/etc/hostname")).toBe("rootfs_invalid");
    expect(await code("/no/such/image")).toBe("file_not_found");
    expect(await code("no-such-image")).toBe("image_not_found");
    expect(await code(tree)).toBe("rootfs_invalid");
    expect(await code(await tarballOf(tree))).toBe("rootfs_invalid");
  });

  test("that the VM's user may not read on the host is refused with what QEMU says", async () => {
    const image = await erofsOf(tree);
    chmodSync(image, 0o600);
    const error = await rejection(vms.run(["true"], { rootfs: image }));
    expect({ code: error.code, denied: /Permission denied/.test(error.message) }).toEqual({
      code: "qemu_exited",
      denied: true,
    });
  });
});
