/** For tests: the image that podman and Mayfly run alike, busybox with users, an environment, an entrypoint and a probe. */
import { chmodSync, chownSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeOciLayout } from "../../../bench/app/oci-layout.ts";
import { newDirectory } from "../engine-host.ts";
import { rootTree, tarballOf } from "../rootfs.ts";

const MORE_APPLETS = "awk cp env find ip kill mkfifo printf readlink sed sort stty tail test tty umount yes".split(" ");

const PASSWD = `root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000::/srv:/bin/sh
bob:x:1001:1002::/home/bob:/bin/sh
`;
const GROUP = `root:x:0:
alice:x:1000:
readers:x:1002:
writers:x:1003:alice,bob
players:x:1004:alice
`;

/** Configuration of the image. */
export const PROBE_CONFIG = {
  Entrypoint: ["/bin/probe", "--from-entrypoint"],
  Cmd: ["from", "cmd"],
  Env: ["PATH=/usr/local/bin:/usr/bin:/bin", "GREETING=hello world", "EMPTY=", "QUOTED=a\"b'c=d $HOME"],
  WorkingDir: "/srv/work",
  User: "alice",
  ExposedPorts: { "8080/tcp": {} },
} as const;

/** Makes the image. @returns the directory of its OCI layout, where it is named `latest`. */
export async function probeImage(): Promise<string> {
  const tree = await rootTree();
  for (const applet of MORE_APPLETS) symlinkSync("busybox", join(tree, "bin", applet));
  writeFileSync(join(tree, "etc/passwd"), PASSWD);
  writeFileSync(join(tree, "etc/group"), GROUP);
  copyFileSync(join(import.meta.dir, "probe.sh"), join(tree, "bin/probe"));
  chmodSync(join(tree, "bin/probe"), 0o755);
  mkdirSync(join(tree, "srv/work"));
  chownSync(join(tree, "srv/work"), 1000, 1000);
  writeFileSync(join(tree, "srv/not-executable"), "#!/bin/sh\n", { mode: 0o644 });
  const layout = newDirectory("probe-image");
  await writeOciLayout(layout, [await tarballOf(tree)], PROBE_CONFIG);
  return layout;
}
