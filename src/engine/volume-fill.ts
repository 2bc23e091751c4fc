/** A volume's first content, as docker has it: what the image has at the mount point, with its owners, modes and times. */
import type { AgentClient } from "../agent/client.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";

/** A volume that is to be filled. */
export interface VolumeFill {
  volume: string;
  /** Its disk in the guest. */
  device: string;
  /** Where it will be mounted in the container. */
  target: string;
}

/**
 * Runs in the guest, outside of the container that is to be: nobody but the image's maker has a say in what is copied, and nobody but its VM
 * suffers from it. The path is followed link by link, as it will be inside the container. Arguments: type of the root's file system, the volume's
 * device, the target.
 */
const SCRIPT = `
set -e
image=/run/fill/image volume=/run/fill/volume
mkdir -p $image $volume
trap 'umount $volume $image 2>/dev/null' EXIT
blockdev --flushbufs /dev/vda 2>/dev/null || true
mount -t "$1" -o ro /dev/vda $image
mount -t ext4 "$2" $volume
place=$image rest=$3 links=0
while [ -n "$rest" ]; do
  part=\${rest%%/*}
  case $rest in */*) rest=\${rest#*/} ;; *) rest= ;; esac
  case $part in
    ''|.) ;;
    ..) [ "$place" = $image ] || place=\${place%/*} ;;
    *)
      if [ -L "$place/$part" ]; then
        links=$((links + 1))
        [ $links -le 40 ] || exit 0
        target=$(readlink "$place/$part")
        case $target in /*) place=$image ;; esac
        rest=$target/$rest
      else
        place=$place/$part
      fi ;;
  esac
done
[ -d "$place" ] || exit 0
cp -a "$place/." $volume/
`;

/** Output of the script that is kept for an error, in bytes. */
const TAIL_BYTES = 2048;

/**
 * Fills new volumes one after the other. The identity has been applied, nothing of the container has been built yet.
 * @throws `disk_full` when what the image has does not fit; `agent_request_failed` with what the guest says.
 */
export async function fillVolumes(
  agent: AgentClient,
  fstype: "erofs" | "ext4",
  fills: readonly VolumeFill[],
  deadline: Deadline,
): Promise<void> {
  for (const fill of fills) await fillVolume(agent, fstype, fill, deadline);
}

async function fillVolume(
  agent: AgentClient,
  fstype: string,
  { volume, device, target }: VolumeFill,
  deadline: Deadline,
): Promise<void> {
  let tail = "";
  const argv = ["/bin/sh", "-c", SCRIPT, "fill", fstype, device, target];
  const process = agent.exec(
    { argv, env: ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"], killTree: true, outside: true, hook: true },
    (_channel, chunk) => {
      tail = (tail + Buffer.from(chunk).toString("latin1")).slice(-TAIL_BYTES);
    },
    deadline,
  );
  const { code } = await deadline.race(process.exited, `the first content of volume ${volume}`);
  await process.release(deadline);
  if (code === 0) return;
  const why = tail.trimEnd().split("\n").at(-1) ?? "";
  throw new MayflyError(
    /No space left/.test(tail) ? "disk_full" : "agent_request_failed",
    `Cannot fill volume ${volume} with what the image has in ${target}: ${why}`,
    { details: { stderrTail: tail } },
  );
}
