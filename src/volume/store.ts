/**
 * Named volumes, `STATE/volumes/NAME/{manifest.json,data.ext4}`: each complete or not there. The data is a sparse file with an ext4 file system; it
 * belongs to root, and to the user of the one VM that has claimed the volume while that runs.
 */
import { join } from "node:path";
import type { Volume } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { NAME_PATTERN } from "../contract/ids.ts";
import { VOLUME_DEFAULT_BYTES, VOLUME_MAX_BYTES, VOLUME_MIN_BYTES } from "../contract/volume.ts";
import { Deadline } from "../sys/deadline.ts";
import { fileSpace, growFile, newSparseFile, revokeFile } from "../sys/disk-files.ts";
import { makeDirectory, movePath, namesIn, readOptional, removePath } from "../sys/paths.ts";
import { exists, publishDirectory, publishFile, sweepUnfinished } from "../sys/publish.ts";
import { setMode } from "../sys/store-files.ts";
import { makeExt4, mendExt4, readExt4 } from "./ext4.ts";
import { type Holder, Holds } from "./holds.ts";
import { decodeVolumeManifest, encodeVolumeManifest, type VolumeManifest } from "./manifest.ts";

/** Volumes have whole mebibytes. */
const SIZE_UNIT = 2 ** 20;

/** A volume to be made. */
export interface NewVolume {
  name: string;
  /** Rounded up to a MiB; 10 GiB unless told. */
  sizeBytes?: number;
  labels?: Record<string, string>;
  anonymous?: boolean;
}

/** A volume that a VM may use now. */
export interface ReadyVolume {
  name: string;
  /** Its raw ext4 image. */
  path: string;
  /** Whether no VM has had it before: it takes over what the image has at its mount point. */
  isNew: boolean;
  /** Size that its file system is to grow to, if it is smaller than its disk. */
  growsToBytes?: number;
}

/** The volumes of one state directory. One process at a time may use it. */
export class VolumeStore {
  readonly #root: string;
  readonly #volumes = new Map<string, VolumeManifest>();
  /** Volumes at which something is done that nobody may come in between of: what it is. */
  readonly #busy = new Map<string, string>();
  readonly #claims = new Holds();
  /** Volumes that are being made, by name. */
  readonly #making = new Map<string, Promise<void>>();
  /** VMs that run or could run again on a volume. */
  usedBy: (name: string) => readonly Holder[] = () => [];
  /** The end of a VM that has begun to end; undefined for one that goes on. */
  ending: (vmId: string) => Promise<unknown> | undefined = () => undefined;

  /** @param mendingUid gives a user that nobody else is meanwhile, to mend a file system as. */
  constructor(
    stateDir: string,
    private readonly mendingUid: () => number,
  ) {
    this.#root = join(stateDir, "volumes");
  }

  /**
   * Reads what is there, and removes what an interrupted change has left. VMs that still run claim theirs next, see {@link claim}; then call
   * {@link takeBack}.
   * @returns what could not be read, with the reason: it is left alone.
   */
  async load(): Promise<{ name: string; error: MayflyError }[]> {
    await makeDirectory(this.#root, 0o711);
    await sweepUnfinished(this.#root);
    const problems: { name: string; error: MayflyError }[] = [];
    for (const name of await namesIn(this.#root)) {
      if (!new RegExp(NAME_PATTERN).test(name)) continue;
      await this.#read(name).catch((error: unknown) => {
        if (!(error instanceof MayflyError)) throw error;
        problems.push({ name, error });
      });
    }
    return problems;
  }

  /** Takes the files back from users of VMs and of e2fsck that are no more: of all volumes that nobody has claimed. */
  takeBack(): void {
    for (const name of this.#volumes.keys()) if (!this.#claims.isHeld(name)) revokeFile(this.dataPath(name));
  }

  /** The raw image of a volume. */
  dataPath(name: string): string {
    return join(this.#root, name, "data.ext4");
  }

  /** Name of the volume that a path is the image of; undefined if it is none's. */
  nameOf(path: string): string | undefined {
    return [...this.#volumes.keys()].find((name) => this.dataPath(name) === path);
  }

  list(): Volume[] {
    return [...this.#volumes.values()]
      .map((volume) => this.#describe(volume))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws `volume_not_found`. */
  get(name: string): Volume {
    return this.#describe(this.#manifest(name));
  }

  has(name: string): boolean {
    return this.#volumes.has(name);
  }

  /** Makes a volume. @throws `name_in_use`, `invalid_argument`, `disk_full`, `tool_missing`; nothing is left of it then. */
  async create(volume: NewVolume): Promise<Volume> {
    if (this.#volumes.has(volume.name) || this.#making.has(volume.name)) {
      throw new MayflyError("name_in_use", `Cannot make volume ${volume.name}: there is one of that name`);
    }
    await this.#make(volume);
    return this.get(volume.name);
  }

  /** Makes a volume of the default size unless there is one. */
  async ensure(name: string, anonymous = false): Promise<void> {
    if (this.#volumes.has(name)) return;
    await (this.#making.get(name) ?? this.#make({ name, anonymous }));
  }

  /**
   * Gives a volume to a VM, which alone has it until {@link release}: at once, since two may ask at the same time.
   * @throws `volume_not_found`; `resource_in_use`, naming the VM that has it or what is being done with it.
   */
  claim(name: string, vm: Holder): void {
    this.#manifest(name);
    this.#refuseUse(name, `give volume ${name} to VM ${vm.name}`, vm.id);
    this.#claims.add(name, vm);
  }

  /** Waits while the VM that has a volume is ending: its main process has ended, and soon it has nothing any more. */
  async settled(name: string, signal?: AbortSignal): Promise<void> {
    const [holder] = this.#claims.of(name);
    const ending = holder === undefined ? undefined : this.ending(holder.id);
    if (ending === undefined) return;
    await Deadline.after(Number.POSITIVE_INFINITY, signal).race(ending, `the end of VM ${holder?.name}`);
  }

  /** Whether no VM has a volume and nothing is done with it. */
  isFree(name: string): boolean {
    return !this.#claims.isHeld(name) && !this.#busy.has(name);
  }

  /** Ends a claim; one that there is not is no error. */
  release(name: string, vmId: string): void {
    this.#claims.remove(name, vmId);
  }

  /**
   * Makes a claimed volume fit for use: an unclean file system is mended first. Without that no process is started and nothing waited for.
   * @throws `store_corrupt`, and the volume stays as it is.
   */
  async ready(name: string): Promise<ReadyVolume> {
    const path = this.dataPath(name);
    if (!readExt4(path).isClean) await mendExt4(path, this.mendingUid());
    const diskBytes = this.get(name).sizeBytes;
    const grows = readExt4(path).sizeBytes < diskBytes;
    return { name, path, isNew: !this.#manifest(name).used, ...(grows ? { growsToBytes: diskBytes } : {}) };
  }

  /** Records that a VM has had a volume: what is in it is no longer an image's. */
  async markUsed(name: string): Promise<void> {
    const manifest = this.#manifest(name);
    if (!manifest.used) await this.#write({ ...manifest, used: true });
  }

  /**
   * Makes a volume larger. Its file system grows when it is mounted next, by the guest's kernel, whose growing survives being interrupted.
   * @throws `volume_not_found`, `resource_in_use`; `invalid_argument` for a smaller size; `disk_full`.
   */
  async resize(name: string, sizeBytes: number): Promise<Volume> {
    const { sizeBytes: nowBytes } = this.get(name);
    const wantedBytes = wholeSize(name, sizeBytes);
    if (wantedBytes < nowBytes) {
      throw new MayflyError(
        "invalid_argument",
        `Cannot resize volume ${name} to ${wantedBytes} bytes: it has ${nowBytes}, and can only grow`,
        {
          details: {
            remedy: "make a smaller one and copy: mayfly run -v OLD:/old:ro -v NEW:/new ... cp -a /old/. /new",
          },
        },
      );
    }
    this.#refuseUse(name, `resize volume ${name}`, "");
    growFile(this.dataPath(name), wantedBytes);
    return this.get(name);
  }

  /**
   * Removes a volume and what is in it.
   * @param lastVmId a VM that was started with it and will not need it any more.
   * @throws `volume_not_found`, `resource_in_use` naming the VM that has it.
   */
  async remove(name: string, lastVmId?: string): Promise<void> {
    this.#manifest(name);
    const what = `remove volume ${name}`;
    this.#refuseUse(name, what, "");
    const user = this.usedBy(name).find(({ id }) => id !== lastVmId);
    if (user !== undefined) {
      throw new MayflyError("resource_in_use", `Cannot ${what}: VM ${user.name} (${user.id}) was started with it`, {
        details: { remedy: `mayfly rm ${user.name}` },
      });
    }
    this.#busy.set(name, "being removed");
    try {
      const away = join(this.#root, `.unfinished-removed-${name}`);
      await removePath(away);
      await movePath(join(this.#root, name), away);
      this.#volumes.delete(name);
      await removePath(away);
    } finally {
      this.#busy.delete(name);
    }
  }

  /** Names of volumes that no VM has or could have again, of anonymous ones only unless `all`. */
  unused(all: boolean): string[] {
    const volumes = [...this.#volumes.values()].filter((volume) => all || volume.anonymous);
    return volumes.map(({ name }) => name).filter((name) => !this.#isInUse(name));
  }

  #isInUse(name: string): boolean {
    return !this.isFree(name) || this.usedBy(name).length > 0;
  }

  #refuseUse(name: string, what: string, vmId: string): void {
    const holder = this.#claims.otherThan(name, vmId);
    if (holder !== undefined) {
      throw new MayflyError("resource_in_use", `Cannot ${what}: VM ${holder.name} (${holder.id}) has it`, {
        details: { holder: holder.id },
      });
    }
    const busy = this.#busy.get(name);
    if (busy !== undefined) throw new MayflyError("resource_in_use", `Cannot ${what}: it is ${busy}`);
  }

  #make(volume: NewVolume): Promise<void> {
    const making = this.#build(volume).finally(() => this.#making.delete(volume.name));
    this.#making.set(volume.name, making);
    return making;
  }

  async #build({ name, sizeBytes = VOLUME_DEFAULT_BYTES, labels = {}, anonymous = false }: NewVolume): Promise<void> {
    if (!new RegExp(NAME_PATTERN).test(name)) {
      throw new MayflyError("invalid_argument", `Cannot make a volume ${JSON.stringify(name)}: that is no name`);
    }
    const bytes = wholeSize(name, sizeBytes);
    const manifest = { name, createdAt: new Date().toISOString(), labels, anonymous, used: false };
    const isOurs = await publishDirectory(join(this.#root, name), async (directory) => {
      await setMode(directory, 0o711);
      const path = join(directory, "data.ext4");
      newSparseFile(path, bytes, []);
      await makeExt4(path, true);
      await publishFile(join(directory, "manifest.json"), encodeVolumeManifest(manifest), 0o600);
    });
    if (!isOurs) throw new MayflyError("store_corrupt", `Cannot make volume ${name}: its directory is there already`);
    this.#volumes.set(name, manifest);
  }

  async #read(name: string): Promise<void> {
    const path = join(this.#root, name, "manifest.json");
    const text = await readOptional(path);
    const why =
      text === undefined ? "it has no manifest" : (await exists(this.dataPath(name))) ? "" : "its data is missing";
    if (text === undefined || why !== "") {
      throw new MayflyError("store_corrupt", `Cannot use volume ${name}: ${why}`, { details: { path } });
    }
    const manifest = decodeVolumeManifest(text, path);
    if (manifest.name !== name) {
      throw new MayflyError("store_corrupt", `Cannot use volume ${name}: its manifest is that of ${manifest.name}`);
    }
    this.#volumes.set(name, manifest);
  }

  async #write(manifest: VolumeManifest): Promise<void> {
    await publishFile(join(this.#root, manifest.name, "manifest.json"), encodeVolumeManifest(manifest), 0o600);
    this.#volumes.set(manifest.name, manifest);
  }

  #manifest(name: string): VolumeManifest {
    const manifest = this.#volumes.get(name);
    if (manifest !== undefined) return manifest;
    throw new MayflyError("volume_not_found", `There is no volume ${JSON.stringify(name)}`);
  }

  #describe({ name, createdAt, labels, anonymous }: VolumeManifest): Volume {
    const space = fileSpace(this.dataPath(name)) ?? { sizeBytes: 0, allocatedBytes: 0 };
    return { name, createdAt, ...space, labels, anonymous, vmId: this.#claims.of(name)[0]?.id ?? null };
  }
}

function wholeSize(name: string, sizeBytes: number): number {
  const bytes = Math.ceil(sizeBytes / SIZE_UNIT) * SIZE_UNIT;
  if (bytes >= VOLUME_MIN_BYTES && bytes <= VOLUME_MAX_BYTES) return bytes;
  throw new MayflyError(
    "invalid_argument",
    `Cannot give volume ${name} ${sizeBytes} bytes: a volume has from ${VOLUME_MIN_BYTES} to ${VOLUME_MAX_BYTES}`,
  );
}
