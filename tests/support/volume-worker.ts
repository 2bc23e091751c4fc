/**
 * A process that makes, grows, removes and fills volumes and takes snapshots for ever, to be killed at any moment.
 * Arguments: the state directory, a directory of the host. Prints a line before each step.
 */
import { DirectoryStore } from "../../src/volume/directories.ts";
import { ScratchStore } from "../../src/volume/scratch.ts";
import { VolumeStore } from "../../src/volume/store.ts";

const [stateDir = "", directory = ""] = process.argv.slice(2);
const vm = { id: `vm_${process.pid}`, name: "worker" };
const volumes = new VolumeStore(stateDir, () => 970_000);
const directories = new DirectoryStore(stateDir, 0);
const scratch = new ScratchStore(stateDir);
await volumes.load();
volumes.takeBack();
await directories.load();
await scratch.load();
await scratch.prune();
await directories.prune();

const say = (step: string) => process.stdout.write(`${step}\n`);
for (let round = 0; ; round++) {
  const name = `v${process.pid}-${round}`;
  say(`create ${name}`);
  await volumes.create({ name, sizeBytes: 64 << 20 });
  say(`made ${name}`);
  await volumes.resize(name, 96 << 20);
  say(`grown ${name}`);
  await volumes.markUsed(name);
  say(`snapshot ${name}`);
  const { key } = await directories.snapshot(directory, vm);
  await directories.release(key, vm.id);
  await scratch.make(`${stateDir}/overlay-${name}`, (64 + round) << 20, vm);
  if (round % 2 === 0) continue;
  say(`remove ${name}`);
  await volumes.remove(name);
  say(`removed ${name}`);
}
