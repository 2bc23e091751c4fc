/** Disks of a VM: what it is started on, and what its slots are put on while it runs or is paused. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { chownSync, existsSync, mkdirSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { attachDisks, detachDisks } from "../../src/engine/disks.ts";
import type { DiskFiles } from "../../src/machine/devices/disk.ts";
import { sha256File } from "../../src/sys/publish.ts";
import { runTool } from "../../src/sys/tool.ts";
import { makeOverlay } from "../../src/volume/overlay.ts";
import { type DiskClone, DiskHost } from "../support/disk-clones.ts";
import { soon } from "../support/engine.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";
import { rejection } from "../support/fake-peer.ts";
import { erofsOf } from "../support/rootfs.ts";

const MIB = 2 ** 20;

describeVms("disks", () => {
  let host: DiskHost;
  let directory: string;
  let clone: DiskClone | undefined;
  let erofs: string;
  let made = 0;

  beforeAll(async () => {
    host = await DiskHost.open();
    directory = newDirectory("files");
    const tree = newDirectory("tree");
    writeFileSync(join(tree, "hello"), "from the image\n");
    mkdirSync(join(tree, "empty"));
    erofs = await erofsOf(tree);
  });
  afterEach(async () => {
    await clone?.[Symbol.asyncDispose]();
    clone = undefined;
  });
  afterAll(() => host?.[Symbol.dispose]());

  /** An empty ext4 file system. */
  const ext4 = async (mebibytes: number): Promise<string> => {
    made += 1;
    const path = join(directory, `${made}.ext4`);
    writeFileSync(path, "");
    truncateSync(path, mebibytes * MIB);
    await runTool(["mkfs.ext4", "-q", "-E", "assume_storage_prezeroed=1", path]);
    return path;
  };
  /** An overlay over a file that must not change. */
  const over = (basePath: string, sizeBytes = statSync(basePath).size) => {
    made += 1;
    const path = join(directory, `${made}.qcow2`);
    makeOverlay(path, sizeBytes);
    return { path, format: "qcow2", basePath, readOnly: false } as const;
  };
  const volume = (path: string) => ({ path, format: "raw", readOnly: false }) as const;
  /** All five slots in use. */
  const five = async (): Promise<DiskFiles> => ({
    root: { path: erofs, format: "raw", readOnly: true },
    scratch: over(await ext4(64), 64 * MIB),
    volume0: volume(await ext4(32)),
    volume1: volume(await ext4(48)),
    volume2: over(erofs),
  });
  const allocated = (path: string) => statSync(path).blocks * 512;

  const USE_ALL = `
    for d in root:erofs:vda scratch:ext4:vdb volume0:ext4:vdc volume1:ext4:vdd volume2:erofs:vde; do
      name=\${d%%:*}; dev=\${d##*:}; type=\${d#*:}; type=\${type%:*}
      mkdir -p /m/$name; blockdev --flushbufs /dev/$dev 2>/dev/null || true
      mount -t $type /dev/$dev /m/$name
    done
    cat /m/root/hello /m/volume2/hello
    for name in scratch volume0 volume1; do echo $name > /m/$name/word; done
    sync; cat /m/*/word
    umount /m/scratch /m/volume0 /m/volume1 /m/volume2 /m/root
  `;
  const USED = "from the image\nfrom the image\nscratch\nvolume0\nvolume1";
  /** What a volume's file holds, as the host reads it. */
  const word = async (path: string) => (await runTool(["debugfs", "-R", "cat /word", path])).stdout;

  test("are what a VM is started on", async () => {
    const disks = await five();
    const digest = await sha256File(erofs);
    clone = await host.start(disks);
    expect(await clone.shell(USE_ALL)).toBe(USED);
    expect(await word(disks.volume0?.path ?? "")).toBe("volume0\n");
    expect(await sha256File(erofs)).toBe(digest);
  });

  for (const state of ["runs", "is paused"] as const) {
    test(`are attached to a VM that ${state}`, async () => {
      const disks = await five();
      clone = await host.start();
      clone.grant(disks);
      const qmp = await clone.qmp();
      if (state === "is paused") await qmp.execute("stop", undefined, soon());
      await attachDisks(qmp, disks, soon());
      if (state === "is paused") await qmp.execute("cont", undefined, soon());
      expect(await clone.shell(USE_ALL)).toBe(USED);
      expect(statSync(disks.volume1?.path ?? "").size).toBe(48 * MIB);
      expect(await word(disks.volume1?.path ?? "")).toBe("volume1\n");
    });
  }

  test("are detached, and others attached in their place", async () => {
    clone = await host.start();
    const qmp = await clone.qmp();
    for (const round of [1, 2, 3]) {
      const disks = await five();
      clone.grant(disks);
      await attachDisks(qmp, disks, soon());
      expect(await clone.shell(USE_ALL)).toBe(USED);
      await detachDisks(qmp, disks, soon());
      const nodes = await qmp.execute("query-named-block-nodes", { flat: true }, soon());
      expect(JSON.stringify(nodes)).not.toContain(directory);
      expect(`${round}: ${await word(disks.volume0?.path ?? "")}`).toBe(`${round}: volume0\n`);
    }
  });

  test("that are trimmed give their space back to the host", async () => {
    const disks: DiskFiles = { scratch: over(await ext4(256), 256 * MIB), volume0: volume(await ext4(256)) };
    clone = await host.start();
    clone.grant(disks);
    await attachDisks(await clone.qmp(), disks, soon());
    await clone.shell("mkdir /m/s /m/v; mount -t ext4 /dev/vdb /m/s; mount -t ext4 /dev/vdc /m/v");
    const paths = [disks.scratch?.path ?? "", disks.volume0?.path ?? ""];
    const before = paths.map(allocated);
    await clone.shell("for d in s v; do dd if=/dev/zero of=/m/$d/large bs=1M count=40; done; sync");
    for (const [index, path] of paths.entries())
      expect(allocated(path) - (before[index] ?? 0)).toBeGreaterThan(38 * MIB);
    await clone.shell("rm /m/s/large /m/v/large; sync; fstrim /m/s; fstrim /m/v; sync");
    for (const [index, path] of paths.entries()) expect(allocated(path) - (before[index] ?? 0)).toBeLessThan(4 * MIB);
  });

  test("that must not change do not, whatever the guest writes to the device", async () => {
    const digest = await sha256File(erofs);
    clone = await host.start({ root: { path: erofs, format: "raw", readOnly: true }, volume0: over(erofs) });
    await clone.shell("head -c 4096 /dev/zero | tr '\\0' x > /dev/vdc; sync; head -c 1 /dev/vdc | grep -q x");
    await clone.shell("dd if=/dev/zero of=/dev/vda bs=4096 count=1 || true; sync");
    expect(await sha256File(erofs)).toBe(digest);
  });

  test("are their VM's user's while it runs, and root's again when it has ended", async () => {
    const path = await ext4(32);
    chownSync(path, 1234, 1234);
    const owner = () => [statSync(path).uid, statSync(path).mode & 0o777];
    clone = await host.start({ volume0: volume(path) });
    expect(owner()).toEqual([clone.clone.qemu.slot.uid, 0o600]);
    await clone.clone.qemu.kill();
    expect(owner()).toEqual([0, 0o600]);
  });

  test("of which one cannot be opened fail by name, and so does one that is in use", async () => {
    const path = await ext4(32);
    clone = await host.start();
    const qmp = await clone.qmp();
    chownSync(path, 0, 0);
    const denied = await rejection(attachDisks(qmp, { volume0: volume(path) }, soon()));
    expect(denied.code).toBe("qmp_command_failed");
    expect(denied.message).toMatch(
      /Cannot attach .*\.ext4 to the VM's disk volume0: .*(Permission denied|not permitted)/,
    );

    clone.grant({ volume1: volume(path) });
    await attachDisks(qmp, { volume1: volume(path) }, soon());
    const twice = await rejection(attachDisks(qmp, { volume2: volume(path) }, soon()));
    expect(twice.message).toContain("lock");
    expect(existsSync(path)).toBe(true);
  });
});
