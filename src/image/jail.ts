/**
 * A place from which a program can write to one directory only: a mount namespace of its own with a root that holds the
 * host's programs read-only and that directory. What unpacks a hostile tarball runs in it.
 */

/** Set-up of the jail. Arguments: an empty directory for the root, the writable directory, then the command. */
const SCRIPT = `
set -e
umask 022
root=$1 writable=$2
shift 2
mount -t tmpfs -o size=1m,mode=755,nodev,nosuid mayfly "$root"
for part in /usr /bin /lib /lib64; do
  if [ -L $part ]; then cp -P $part "$root$part"
  elif [ -d $part ]; then mkdir "$root$part"; mount --bind -o ro $part "$root$part"
  fi
done
mkdir "$root/image"
mount --bind "$writable" "$root/image"
mount -o remount,bind,nodev,nosuid,noexec "$root/image"
mount -o remount,ro "$root"
cd "$root"
exec chroot "$root" "$@"
`;

/** Where the writable directory is inside. */
export const JAIL_DIRECTORY = "/image";

/**
 * The command that runs another one jailed: no network, no other processes in sight, ended with its parent. Standard streams stay.
 *
 * @param root an empty directory on the host, outside of `writable`.
 */
export function jailed(root: string, writable: string, command: readonly string[]): string[] {
  const namespaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--net", "--ipc"];
  return ["unshare", ...namespaces, "/bin/sh", "-c", SCRIPT, "jail", root, writable, ...command];
}
