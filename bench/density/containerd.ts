/** containerd + runc as they come with Debian, without a network: a containerd of the benchmark's own, and `ctr`. */
import { MayflyError } from "../../src/contract/errors.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { makeDirectory, writeText } from "../../src/sys/paths.ts";
import { runTool, toolEnvironment } from "../../src/sys/tool.ts";
import { busyboxImage } from "../app/busybox-image.ts";
import { openNamespace } from "../namespace.ts";
import { busyboxPath, checkAnswer, ECHO_WORD, SLEEP } from "./container-image.ts";
import type { Crowd, CrowdKind } from "./crowd.ts";
import { openGroup } from "./group.ts";

const START_LIMIT_MS = 30_000;
const NAMESPACE = "mayfly-bench";
/** Kubernetes' interface, which `ctr` does not use, is left out: it is the larger part of an idle containerd. */
const configOf = (directory: string) => `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
`;
/** What is mounted for it goes with its mount namespace, and so does what runc, its shims and `ctr` keep in /run. */
const OWN_RUN = "mount -t tmpfs run /run";
const BOOTED = "containerd successfully booted";

/** The kind. @param directory an empty one, for all that it keeps. */
export async function containerdKind(directory: string): Promise<CrowdKind> {
  const versionOf = async (...command: string[]) =>
    /\d+(\.\d+)+\S*/.exec((await runTool([...command, "--version"])).stdout)?.[0] ?? "unknown";
  const version = `${await versionOf("containerd")} with runc ${await versionOf("runc")}`;
  let opened = 0;
  return {
    subject: "containerd",
    facts: () => ({ version, note: null }),
    open(resources, signal) {
      opened += 1;
      return openContainerd(`${directory}/${opened}`, resources, signal);
    },
  };
}

async function openContainerd(directory: string, resources: AsyncDisposableStack, signal: AbortSignal): Promise<Crowd> {
  await makeDirectory(directory);
  const own = await openNamespace(OWN_RUN, resources);
  if (own === undefined) throw new MayflyError("internal", "Cannot give containerd a mount namespace of its own");
  const group = openGroup();
  resources.use(group);
  const address = `${directory}/containerd.sock`;
  await writeText(`${directory}/config.toml`, configOf(directory));
  const places = ["--root", `${directory}/root`, "--state", `${directory}/state`, "--address", address];
  const words = [...group.enter, ...own];
  const enginePid = await startEngine([...words, "containerd", "--config", `${directory}/config.toml`, ...places], {
    resources,
    signal,
  });
  const ctr = (command: readonly string[], options = {}) =>
    runTool([...words, "ctr", "--address", address, "--namespace", NAMESPACE, ...command], options);
  const layout = await busyboxImage(`${directory}/image`, await busyboxPath());
  const tarball = `${directory}/image.tar`;
  await runTool(["tar", "-C", layout, "-cf", tarball, "."], { signal });
  await ctr(["image", "import", "--base-name", "localhost/busybox", tarball], { signal });
  let started = 0;
  return {
    ...{ group, enginePid },
    async start(stop) {
      started += 1;
      const id = `c${started}`;
      const run = ["run", "--detach", "--cgroup", `${group.path}/${id}`, "localhost/busybox:latest", id, ...SLEEP];
      await ctr(run, { signal: stop });
      return id;
    },
    async answer(id, stop) {
      checkAnswer(id, (await ctr(["task", "exec", "--exec-id", "ask", id, ...ECHO_WORD], { signal: stop })).stdout);
    },
    async remove(id) {
      // It ends with the exit code of the task that it has killed; if that is still there, the container stays and says so.
      await ctr(["task", "rm", "--force", id]).catch(() => undefined);
      await ctr(["container", "rm", id]);
    },
  };
}

/** Starts containerd and waits until it says that it serves. @returns its pid. */
async function startEngine(
  command: string[],
  { resources, signal }: { resources: AsyncDisposableStack; signal: AbortSignal },
): Promise<number> {
  const child = Bun.spawn(command, { env: toolEnvironment(), stdio: ["ignore", "ignore", "pipe"], detached: true });
  resources.defer(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  const booted = Promise.withResolvers<boolean>();
  let text = "";
  const drain = async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) {
      text = (text + decoder.decode(chunk, { stream: true })).slice(-10_000);
      if (text.includes(BOOTED)) booted.resolve(true);
    }
    booted.resolve(false);
  };
  void drain();
  if (await Deadline.after(START_LIMIT_MS, signal).race(booted.promise, "the start of containerd")) return child.pid;
  throw new MayflyError("tool_failed", `containerd ended: ${text.trimEnd().split("\n").at(-1)}`, {
    details: { exitCode: child.exitCode ?? -1, stderrTail: text.slice(-1000) },
  });
}
