/** For tests: a small web service of the guest's busybox as an image: CGI scripts, a main process that prints and takes signals, hooks. */
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { BuildTemplateRequest, Template, Vm } from "../../src/contract/api.ts";
import { soon, type TestEngine } from "./engine.ts";
import { rootTree, tarballOf } from "./rootfs.ts";

const APPLETS = "awk env find httpd kill mkfifo nc od printf pwd readlink sort tail test wget xargs".split(" ");

/** Serves /www, prints what it does, ends with 7 at SIGTERM. What it drew before it was saved is in /tmp/drawn. */
const MAIN = `#!/bin/sh
echo "starting on $(hostname)"
echo "complaining" >&2
od -An -N8 -tx1 /dev/urandom > /tmp/drawn
trap 'echo "ending on $(hostname)"; exit 7' TERM
trap 'echo "asked on $(hostname)"; echo "loud" >&2' USR1
httpd -p 8080 -h /www
echo "serving on 8080"
while :; do sleep 1000 & wait $!; done
`;

/** Host name, fresh random bytes, what a post-clone hook has left, and how often it has been asked since it was started. */
const INFO = `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo x >> /tmp/asked
echo "host=$(hostname) random=$(od -An -N8 -tx1 /dev/urandom | tr -d ' ') asked=$(wc -l < /tmp/asked | tr -d ' ') hooks=$(cat /tmp/hooks 2>/dev/null | tr '\\n' ,)"
`;

/** What goes into the image, besides busybox: contents by path. What begins with `#!` can be executed. */
export type Contents = Readonly<Record<string, string>>;

export const SERVICE: Contents = { "bin/main": MAIN, "www/cgi-bin/info": INFO, "www/index.html": "hello\n" };

/** A tarball with the service and whatever else is given. @returns its path. */
export async function serviceTarball(more: Contents = {}): Promise<string> {
  const tree = await rootTree();
  for (const applet of APPLETS) symlinkSync("busybox", join(tree, "bin", applet));
  for (const [path, text] of Object.entries({ ...SERVICE, ...more })) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), text);
    chmodSync(join(tree, path), text.startsWith("#!") ? 0o755 : 0o644);
  }
  return tarballOf(tree);
}

let made = 0;

/** Imports an image with the service and whatever else is given. @returns its name. */
export async function serviceImage(vms: TestEngine, more: Contents = {}): Promise<string> {
  made += 1;
  const name = `service${made}`;
  await vms.engine.importImage({ name, path: await serviceTarball(more) }, { deadline: soon(60_000) });
  return name;
}

/** Builds a template of the service. */
export async function buildService(vms: TestEngine, request: BuildTemplateRequest): Promise<Template> {
  const whole: BuildTemplateRequest = {
    command: ["/bin/main"],
    ready: { kind: "log", pattern: "^serving on \\d+$" },
    ...request,
  };
  return vms.engine.buildTemplate(whole, { deadline: soon(60_000) });
}

/** What the service of a VM says of itself, asked from inside. */
export async function askService(vms: TestEngine, vm: Vm): Promise<Record<string, string>> {
  const text = await vms.shell(vm.id, "wget -q -O - http://127.0.0.1:8080/cgi-bin/info");
  return Object.fromEntries(text.split(" ").map((part) => part.split("=") as [string, string]));
}
