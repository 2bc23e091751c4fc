import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import {
  filesBelow,
  isRoot,
  makeDirectory,
  namesIn,
  readBytes,
  readOptional,
  removePath,
  temporaryDirectory,
  treeBelow,
  writeText,
} from "../sys/paths.ts";
import { exists, sha256File } from "../sys/publish.ts";
import { findTool, runTool } from "../sys/tool.ts";
import { importRootfs } from "./import.ts";
import { detectRootfs } from "./rootfs.ts";
import { imagesDirectory, listImages, openImage, removeImage, sweepImages } from "./store.ts";
import { type BuiltEntry, buildTar } from "./tar-builder.ts";

/** Whether this host's kernel reads erofs, so that an image can be compared with what it was made of. */
const canMountErofs = (await readOptional("/proc/filesystems"))?.includes("\terofs\n") ?? false;
const canCompareTrees = canMountErofs && findTool("setfattr") !== undefined;

let work = "";
let stateDir = "";
let tarball = "";

beforeEach(async () => {
  work = await temporaryDirectory("mayfly-image");
  stateDir = `${work}/state`;
  tarball = `${work}/rootfs.tar`;
});

afterEach(async () => {
  await removePath(work);
});

async function refusal(entries: BuiltEntry[], limitBytes = 2 ** 30): Promise<MayflyError> {
  await writeText(tarball, buildTar(entries));
  return failure(importRootfs({ stateDir, tarballPath: tarball, limitBytes }));
}

async function failure(action: Promise<unknown>): Promise<MayflyError> {
  const error = await action.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw error;
}

/** A tree with one of everything, owned and marked in every way; packed by GNU tar. */
async function packEverything(): Promise<void> {
  const script = `
    set -e
    umask 022
    mkdir -p tree/etc tree/dev tree/data tree/locked tree/tmp
    cd tree
    echo hello > etc/hello; chown 1000:4000000 etc/hello; chmod 4751 etc/hello
    ln etc/hello data/again
    ln -s ../etc/hello data/link
    ln -s /absolute/nowhere data/dangling
    mknod dev/null c 1 3; mknod dev/sda b 8 0; mkfifo data/pipe
    chmod 1777 tmp; chmod 0 locked; chmod 2755 data
    setfattr -n user.note -v kept etc/hello
    setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 etc/hello || true
    setfattr -n trusted.overlay.opaque -v y data
    printf 'odd\\n' > "data/odd name
with newline"
    head -c 300000 /dev/urandom > data/random
    truncate -s 3M data/sparse
    touch -d '2001-02-03 04:05:06.789' etc/hello
    cd ..
    tar --xattrs --xattrs-include='*' --format=posix --sparse -C tree -cf rootfs.tar .
  `;
  await runTool(["sh", "-c", script], { cwd: work });
}

/** A tarball long enough for its import to report progress. */
async function packZeroes(): Promise<void> {
  await runTool(["sh", "-c", "mkdir z && head -c 40000000 /dev/zero > z/zeroes && tar -C z -cf rootfs.tar ."], {
    cwd: work,
  });
}

/** All that is to be kept, of every file of a mounted or original tree. */
async function describeTree(directory: string): Promise<string[]> {
  const script = `cd "$1" && find . -print0 | sort -z | xargs -0 stat --format '%N %F %a %u %g %h %t %T %Y'
    find . -type f -print0 | sort -z | xargs -0 sha256sum
    find . -print0 | sort -z | xargs -0 -n 1 getfattr -h -d -m - -e hex`;
  const { stdout } = await runTool(["sh", "-c", script, "describe", directory]);
  return stdout.split("\n");
}

describe.skipIf(!isRoot())("import", () => {
  test.skipIf(!canCompareTrees)("keeps every owner, mode, xattr, hard link, device, link and time", async () => {
    await packEverything();
    const image = await importRootfs({ stateDir, tarballPath: tarball });
    expect(image.manifest.digest).toBe(`sha256:${await sha256File(tarball)}`);
    expect(image.manifest.sha256).toBe(await sha256File(image.rootfsPath));
    expect(await detectRootfs(image.rootfsPath)).toEqual({ fstype: "erofs", sizeBytes: image.manifest.sizeBytes });
    await runTool(["fsck.erofs", image.rootfsPath]);
    const unpacked = `${work}/unpacked`;
    await mounted(image.rootfsPath, unpacked, async () => {
      const [was, is] = [await describeTree(`${work}/tree`), await describeTree(unpacked)];
      expect(is).toEqual(was);
    });
  });

  const compressions: [name: string, command: string[], suffix: string][] = [
    ["gzip", ["gzip", "-k"], ".gz"],
    ["xz", ["xz", "-k", "-0"], ".xz"],
    ["zstd", ["zstd", "-q", "-k"], ".zst"],
  ];
  const known = compressions.filter(([name]) => findTool(name) !== undefined);
  test.each(known)("%s gives the same image as the plain tarball", async (_name, command, suffix) => {
    await writeText(tarball, buildTar([{ name: "a", content: "x".repeat(10_000) }]));
    await runTool([...command, tarball]);
    const packed = await importRootfs({ stateDir, tarballPath: `${tarball}${suffix}` });
    expect(packed.manifest.digest).toBe(`sha256:${await sha256File(tarball)}`);
    await runTool(["truncate", "-s", "-20", `${tarball}${suffix}`]);
    const error = await failure(importRootfs({ stateDir, tarballPath: `${tarball}${suffix}` }));
    expect(error.code).toBe("image_invalid");
  });

  test("hostile entries are refused by name and nothing is left", async () => {
    const outside = `${work}/outside`;
    const hostile: BuiltEntry[][] = [
      [
        { name: "ok", content: "x" },
        { name: "../outside", content: "x" },
      ],
      [{ name: outside, content: "x" }],
      [
        { name: "l", type: "2", link: work },
        { name: "l/outside", content: "x" },
      ],
      [{ name: "h", type: "1", link: "/etc/passwd" }],
    ];
    for (const entries of hostile) {
      const error = await refusal(entries);
      expect(error.code).toBe("image_invalid");
      expect(error.details["entry"]).toBe(entries.at(-1)?.name);
    }
    expect(await exists(outside)).toBe(false);
    expect(await treeBelow(imagesDirectory(stateDir))).toEqual([]);
  });

  test("bombs are refused: by size, by holes, by compression", async () => {
    expect((await refusal([{ name: "big", content: "x".repeat(5000) }], 4000)).message).toContain("limit is 4000");
    const sparse = {
      "GNU.sparse.major": "1",
      "GNU.sparse.minor": "0",
      "GNU.sparse.name": "holes",
      "GNU.sparse.realsize": "1099511627776",
    };
    expect((await refusal([{ name: "x", pax: sparse, content: "0\n" }])).code).toBe("image_invalid");
    await runTool(["sh", "-c", "mkdir b && truncate -s 100M b/zeroes && tar -C b -c . | gzip -1 > bomb.tar.gz"], {
      cwd: work,
    });
    const error = await failure(importRootfs({ stateDir, tarballPath: `${work}/bomb.tar.gz`, limitBytes: 2 ** 26 }));
    expect(error.message).toContain("./zeroes");
    expect(await treeBelow(imagesDirectory(stateDir))).toEqual([]);
  });

  test("what is no tarball is refused", async () => {
    await writeText(tarball, "just some text".repeat(100));
    expect((await failure(importRootfs({ stateDir, tarballPath: tarball }))).code).toBe("image_invalid");
    await writeText(tarball, "");
    expect((await failure(importRootfs({ stateDir, tarballPath: tarball }))).message).toContain("no files");
    expect((await failure(importRootfs({ stateDir, tarballPath: work }))).message).toContain("directory");
    expect((await failure(importRootfs({ stateDir, tarballPath: `${work}/none` }))).code).toBe("file_not_found");
  });

  test("two imports of one tarball at once give one image", async () => {
    await writeText(tarball, buildTar([{ name: "a", content: "x" }]));
    const both = await Promise.all([1, 2].map(() => importRootfs({ stateDir, tarballPath: tarball })));
    expect(both[0]).toEqual(both[1]);
    expect(await listImages(stateDir)).toEqual([both[0]?.manifest.digest ?? ""]);
    expect(await namesIn(imagesDirectory(stateDir))).toHaveLength(1);
  });

  test("a cancelled import leaves nothing", async () => {
    await packZeroes();
    const cancel = new AbortController();
    const onProgress = () => cancel.abort();
    const running = importRootfs({ stateDir, tarballPath: tarball, signal: cancel.signal, onProgress });
    expect((await failure(running)).code).toBe("cancelled");
    expect(await treeBelow(imagesDirectory(stateDir))).toEqual([]);
  });

  test("a killed import is swept, one at work is not", async () => {
    await packZeroes();
    let sweptAtWork: Promise<number> | undefined;
    const onProgress = () => {
      sweptAtWork ??= sweepImages(stateDir);
    };
    const { manifest } = await importRootfs({ stateDir, tarballPath: tarball, onProgress });
    expect(await sweptAtWork).toBe(0);
    await removeImage(stateDir, manifest.digest);
    const program = `import { importRootfs } from ${JSON.stringify(`${import.meta.dir}/import.ts`)};
      const onProgress = () => process.kill(process.pid, "SIGKILL");
      await importRootfs({ stateDir: ${JSON.stringify(stateDir)}, tarballPath: ${JSON.stringify(tarball)}, onProgress });`;
    await writeText(`${work}/import.ts`, program);
    const error = await failure(runTool([process.execPath, `${work}/import.ts`]));
    expect(error.details.signal).toBe("SIGKILL");
    expect(await treeBelow(imagesDirectory(stateDir))).not.toEqual([]);
    expect(await sweepImages(stateDir)).toBe(1);
    expect(await treeBelow(imagesDirectory(stateDir))).toEqual([]);
  });

  test("a full disk is said, and nothing is left", async () => {
    await makeDirectory(stateDir);
    await runTool(["sh", "-c", "mkdir b && head -c 90000000 /dev/urandom > b/noise && tar -C b -cf rootfs.tar ."], {
      cwd: work,
    });
    await runTool(["mount", "-t", "tmpfs", "-o", "size=120m", "mayfly-test", stateDir]);
    try {
      expect((await failure(importRootfs({ stateDir, tarballPath: tarball }))).code).toBe("disk_full");
      await runTool(["mount", "-o", "remount,size=170m", stateDir]);
      expect((await failure(importRootfs({ stateDir, tarballPath: tarball }))).code).toBe("disk_full");
      expect(await filesBelow(stateDir)).toEqual([]);
      await runTool(["mount", "-o", "remount,size=260m", stateDir]);
      await importRootfs({ stateDir, tarballPath: tarball });
    } finally {
      await runTool(["umount", stateDir]);
    }
  }, 30_000);

  test("an image is opened, found damaged, and removed", async () => {
    await writeText(tarball, buildTar([{ name: "a", content: "x" }]));
    const { manifest, rootfsPath } = await importRootfs({ stateDir, tarballPath: tarball });
    expect((await openImage(stateDir, manifest.digest)).rootfsPath).toBe(rootfsPath);
    const path = rootfsPath.replace("rootfs.erofs", "manifest.json");
    const good = await readBytes(path);
    await writeText(path, good.subarray(0, 50));
    expect((await failure(openImage(stateDir, manifest.digest))).code).toBe("store_corrupt");
    await removeImage(stateDir, manifest.digest);
    expect((await failure(openImage(stateDir, manifest.digest))).code).toBe("image_not_found");
    expect((await failure(openImage(stateDir, "sha256:../.."))).code).toBe("invalid_argument");
    expect(await sweepImages(stateDir)).toBe(0);
  });
});

/** Mounts an erofs image while `use` runs. */
async function mounted(image: string, directory: string, use: () => Promise<void>): Promise<void> {
  await makeDirectory(directory);
  await runTool(["mount", "-t", "erofs", "-o", "loop,ro", image, directory]);
  try {
    await use();
  } finally {
    await runTool(["umount", directory]);
  }
}
