/** A mount namespace in which something of the host is arranged differently, for peers that do not start otherwise. */

/**
 * Makes a mount namespace, runs a shell command in it, and keeps it until the resources are disposed of.
 * @returns the command line's beginning that enters it; `undefined` when the command failed, or without the rights for it.
 */
export async function openNamespace(command: string, resources: AsyncDisposableStack): Promise<string[] | undefined> {
  const keeper = Bun.spawn(["unshare", "--mount", "sh", "-c", `${command} && echo ready && read -r _`], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  resources.defer(async () => {
    await keeper.stdin.end();
    await keeper.exited;
  });
  for await (const _ of keeper.stdout) return ["nsenter", `--mount=/proc/${keeper.pid}/ns/mnt`, "--"];
  return undefined;
}
