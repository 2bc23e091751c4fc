/** For tests: small root file systems of the guest's own busybox, as a tree, an erofs image, an ext4 image and a tarball. */
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { runTool } from "../../src/sys/tool.ts";
import { readCpio } from "./cpio.ts";
import { hostArtifacts, newDirectory } from "./engine-host.ts";

const APPLETS =
  "cat cut date df echo grep head hostname id ls mkdir mount ps rm sha256sum sh sleep stat touch tr true uname wc".split(
    " ",
  );

/** Prints one extended attribute of a file, which busybox cannot. */
const SHOW_XATTR = `
#include <stdio.h>
#include <sys/xattr.h>
int main(int argc, char **argv) {
  char value[256];
  ssize_t n = argc == 3 ? getxattr(argv[1], argv[2], value, sizeof value) : -1;
  if (n < 0) { perror("getxattr"); return 1; }
  fwrite(value, 1, (size_t)n, stdout);
  putchar('\\n');
  return 0;
}
`;

/** Makes a tree with a shell and the usual directories. @returns its path. */
export async function rootTree(): Promise<string> {
  const tree = newDirectory("tree");
  chmodSync(tree, 0o755);
  for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "run", "var", "srv"])
    mkdirSync(join(tree, name));
  chmodSync(join(tree, "tmp"), 0o1777);
  const busybox = readCpio(readFileSync(hostArtifacts().initramfs.path)).find(({ name }) =>
    name.endsWith("bin/busybox"),
  );
  if (busybox === undefined) throw new Error("the initramfs has no busybox");
  writeFileSync(join(tree, "bin/busybox"), busybox.data, { mode: 0o755 });
  for (const applet of APPLETS) symlinkSync("busybox", join(tree, "bin", applet));
  writeFileSync(join(tree, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/srv:/bin/sh\n");
  writeFileSync(join(tree, "etc/release"), "a root of its own\n");
  return tree;
}

/** Adds to a tree one of everything that an import has to keep; `bin/xattr FILE NAME` there shows an attribute. */
export async function addOddities(tree: string): Promise<void> {
  const script = `
    mkdir odd odd/sticky && chmod 1777 odd/sticky
    echo owned > odd/owned && chown 1234:4321 odd/owned && chmod 0640 odd/owned
    echo suid > odd/suid && chmod 6755 odd/suid
    echo linked > odd/one && ln odd/one odd/two
    ln -s ../etc/release odd/link && ln -s /no/such/place odd/dangling
    mknod odd/null c 1 3 && mknod odd/loop b 7 9 && mkfifo odd/fifo
    echo spaced > 'odd/a name with spaces'
    : > odd/empty
    touch -d @1000000000 odd/owned
    setfattr -n user.mayfly -v 'kept value' odd/owned 2>/dev/null ||
      python3 -c 'import os; os.setxattr("odd/owned", "user.mayfly", b"kept value")'
  `;
  await runTool(["sh", "-ec", script], { cwd: tree });
  const source = join(dirname(tree), "xattr.c");
  writeFileSync(source, SHOW_XATTR);
  await runTool(["musl-gcc", "-static", "-Os", "-o", join(tree, "bin/xattr"), source]);
}

/** An erofs image of a tree. */
export async function erofsOf(tree: string): Promise<string> {
  const image = `${tree}.erofs`;
  await runTool(["mkfs.erofs", "--quiet", "-zlz4", image, tree]);
  return image;
}

/** An ext4 image of a tree, of so many MiB. */
export async function ext4Of(tree: string, mebibytes = 64): Promise<string> {
  const image = `${tree}.ext4`;
  await runTool(["mkfs.ext4", "-q", "-d", tree, image, `${mebibytes}M`]);
  return image;
}

/** A tarball of a tree with everything in it. */
export async function tarballOf(tree: string): Promise<string> {
  const tarball = `${tree}.tar`;
  await runTool([
    "tar",
    "--create",
    `--file=${tarball}`,
    "--xattrs",
    "--xattrs-include=*",
    "--numeric-owner",
    "-C",
    tree,
    ".",
  ]);
  return tarball;
}
