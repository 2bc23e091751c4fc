/** Templates on disk: `templates/ID/{manifest.json,memory,device-state}`, published atomically, immutable after. */
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import type { TemplateId } from "../contract/ids.ts";
import type { Fingerprint } from "../contract/machine.ts";
import { Entries, type EntryKind, sha256Of } from "../sys/entries.ts";
import { digestMemoryFile } from "../sys/memory-file.ts";
import { readBytes, removePath } from "../sys/paths.ts";
import { publishDirectory } from "../sys/publish.ts";
import { giveTo, newFile, placedFile, seal, setMode } from "../sys/store-files.ts";
import type { ApplicationPart } from "./application.ts";
import { decodeManifest, encodeManifest, MAX_MANIFEST_BYTES, type TemplateManifest } from "./manifest.ts";

/** Bytes of the largest device state that is loaded. A two-vCPU VM's has 11 KB. */
const MAX_DEVICE_STATE_BYTES = 1 << 20;
const KIND: EntryKind = {
  noun: "template",
  prefix: "tpl_",
  notFound: "template_not_found",
  corrupt: "template_corrupt",
};

/** What a builder fills: existing files that the builder's uid may write; memory has its size already. */
export interface TemplateWorkspace {
  memoryPath: string;
  deviceStatePath: string;
  consolePath: string;
}

/** A template ready to be cloned: its device state in memory, its memory file known by inode and size. */
export class LoadedTemplate {
  constructor(
    readonly manifest: TemplateManifest,
    readonly memoryPath: string,
    readonly deviceState: Uint8Array,
    private readonly inode: number,
  ) {}

  get id(): TemplateId {
    return this.manifest.id as TemplateId;
  }

  /** Checks at each clone that the memory file is still the one that was loaded. @throws `template_corrupt`. */
  check(): void {
    const file = placedFile(this.memoryPath);
    if (file === undefined) throw corrupt(this.id, this.memoryPath, "the memory file is gone");
    if (file.sizeBytes !== this.manifest.memory.sizeBytes) {
      const wanted = this.manifest.memory.sizeBytes;
      throw corrupt(this.id, this.memoryPath, `memory file has ${file.sizeBytes} bytes, manifest requires ${wanted}`);
    }
    if (file.inode !== this.inode) throw corrupt(this.id, this.memoryPath, "the memory file was replaced");
  }
}

/** The folder of templates of one state directory. */
export class TemplateStore {
  readonly #entries: Entries;

  constructor(stateDir: string) {
    this.#entries = new Entries(join(stateDir, "templates"), KIND);
  }

  directory(id: string): string {
    return this.#entries.directory(id);
  }

  /**
   * Publishes a template: `build` has a VM on the workspace's memory file, has its device state written and returns once that
   * VM has quit, with what is to be known of an application in it. The memory is then trimmed, hashed and made read-only for `gid`.
   * @returns the manifest. If anything throws, nothing of it is left.
   */
  async publish(
    parts: {
      id: TemplateId;
      fingerprint: Fingerprint;
      fingerprintHash: string;
      gid: number;
      ownerUid: number;
      madeFor?: TemplateManifest["madeFor"];
    },
    build: (workspace: TemplateWorkspace) => Promise<ApplicationPart | undefined>,
  ): Promise<TemplateManifest> {
    const startedMs = performance.now();
    let manifest: TemplateManifest | undefined;
    await publishDirectory(this.directory(parts.id), async (directory) => {
      const workspace = await makeWorkspace(directory, parts);
      const application = await build(workspace);
      const deviceState = await readBytes(workspace.deviceStatePath);
      if (deviceState.length === 0) throw corrupt(parts.id, workspace.deviceStatePath, "QEMU saved no device state");
      const digest = await digestMemoryFile(workspace.memoryPath, { trim: true });
      const complete: TemplateManifest = {
        id: parts.id,
        createdAt: new Date().toISOString(),
        buildMs: Math.round(performance.now() - startedMs),
        fingerprint: parts.fingerprint,
        fingerprintHash: parts.fingerprintHash,
        memory: digest,
        deviceState: { sizeBytes: deviceState.length, sha256: sha256Of(deviceState) },
        ...(application === undefined ? {} : { application }),
        ...(parts.madeFor === undefined ? {} : { madeFor: parts.madeFor }),
      };
      manifest = complete;
      await removePath(workspace.consolePath);
      await newFile(join(directory, "manifest.json"), encodeManifest(complete), manifestMode(complete));
      await seal(workspace.deviceStatePath, 0, 0o400);
      await seal(workspace.memoryPath, parts.gid, 0o440);
      await setMode(directory, 0o711);
    });
    if (manifest === undefined) throw new MayflyError("internal", `Template ${parts.id} exists already`);
    return manifest;
  }

  /**
   * Publishes a template that was made elsewhere, as its manifest says; the memory is read and checked before.
   * @param id the one that it has to be; `snapshotId`: what it is needed for. One of that id that is here already stays.
   * @param files the manifest's file as it is there; `fillMemory` writes into a file that exists.
   * @returns whether it has been published.
   * @throws `template_corrupt` if it is not what the manifest says. Nothing of it is left then.
   */
  async adopt(
    id: string,
    files: { manifest: Uint8Array; deviceState: Uint8Array; fillMemory(path: string): Promise<void> },
    { gid, snapshotId }: { gid: number; snapshotId: string },
  ): Promise<boolean> {
    const given = decodeManifest(files.manifest, "of a template that comes along");
    if (given.id !== id) throw corrupt(id, this.directory(id), `the manifest that comes along belongs to ${given.id}`);
    return publishDirectory(this.directory(id), async (beside) => {
      await setMode(beside, 0o711);
      const memoryPath = join(beside, "memory");
      await newFile(memoryPath, "", 0o600);
      await files.fillMemory(memoryPath);
      const digest = await digestMemoryFile(memoryPath, { trim: true });
      const { sizeBytes, sha256 } = given.memory;
      if (digest.sha256 !== sha256 || digest.sizeBytes !== sizeBytes) {
        const has = `${digest.sizeBytes} bytes with checksum ${digest.sha256}`;
        throw corrupt(given.id, memoryPath, `its memory has ${has}, its manifest requires ${sizeBytes} with ${sha256}`);
      }
      if (sha256Of(files.deviceState) !== given.deviceState.sha256) {
        throw corrupt(given.id, memoryPath, "its device state has another checksum than its manifest requires");
      }
      await newFile(join(beside, "device-state"), files.deviceState, 0o400);
      const manifest = encodeManifest({ ...given, memory: digest, madeFor: { kind: "import", snapshotId } });
      await newFile(join(beside, "manifest.json"), manifest, manifestMode(given));
      await seal(memoryPath, gid, 0o440);
    });
  }

  /** A template's manifest as its file has it. @throws `template_not_found`, `template_corrupt`. */
  async manifestBytes(id: string): Promise<Uint8Array> {
    return this.#entries.read(id, "manifest.json", MAX_MANIFEST_BYTES);
  }

  /** Ids of all published templates. */
  async list(): Promise<string[]> {
    return this.#entries.ids();
  }

  /** Reads a template for cloning. @throws `template_not_found`, `template_corrupt`. */
  async load(id: string): Promise<LoadedTemplate> {
    const directory = this.directory(id);
    const manifest = decodeManifest(
      await this.#entries.read(id, "manifest.json", MAX_MANIFEST_BYTES),
      join(directory, "manifest.json"),
    );
    if (manifest.id !== id) throw corrupt(id, directory, `the manifest belongs to ${manifest.id}`);
    const deviceState = await this.#entries.readDeviceState(id, manifest.deviceState, MAX_DEVICE_STATE_BYTES);
    const memoryPath = join(directory, "memory");
    const file = placedFile(memoryPath);
    if (file === undefined) throw corrupt(id, memoryPath, "the memory file is missing");
    const loaded = new LoadedTemplate(manifest, memoryPath, deviceState, file.inode);
    loaded.check();
    return loaded;
  }

  /** Checks all files against the manifest, the whole memory included. @returns every problem; none: it is sound. */
  async verify(id: string): Promise<string[]> {
    let loaded: LoadedTemplate;
    try {
      loaded = await this.load(id);
    } catch (error) {
      if (error instanceof MayflyError && error.code === "template_corrupt") return [error.message];
      throw error;
    }
    const { memory } = loaded.manifest;
    const digest = await digestMemoryFile(loaded.memoryPath, { trim: false });
    if (digest.sha256 === memory.sha256) return [];
    return [`memory has checksum ${digest.sha256}, the manifest requires ${memory.sha256}`];
  }

  /** Removes a template: renamed away first, so that it is whole or gone. Running clones keep their mapping. */
  async remove(id: string): Promise<void> {
    await this.#entries.remove(id);
  }

  /** Removes what an interrupted build or removal has left. Only the daemon that holds the state directory may call it. */
  async sweep(): Promise<string[]> {
    return this.#entries.sweep();
  }
}

/** The environment of an application may hold secrets; what belongs to a snapshot is nobody else's. */
function manifestMode({ application, madeFor }: TemplateManifest): number {
  return application === undefined && madeFor === undefined ? 0o444 : 0o400;
}

async function makeWorkspace(
  directory: string,
  parts: { fingerprint: Fingerprint; ownerUid: number },
): Promise<TemplateWorkspace> {
  await setMode(directory, 0o711);
  const memoryPath = join(directory, "memory");
  await newFile(memoryPath, { holeBytes: parts.fingerprint.memoryMiB * 2 ** 20 }, 0o600);
  const workspace = {
    memoryPath,
    deviceStatePath: join(directory, "device-state"),
    consolePath: join(directory, "console.log"),
  };
  await newFile(workspace.deviceStatePath, "", 0o600);
  await newFile(workspace.consolePath, "", 0o600);
  for (const path of Object.values(workspace)) await giveTo(path, parts.ownerUid, 0);
  return workspace;
}

function corrupt(id: string, path: string, why: string): MayflyError {
  return new MayflyError("template_corrupt", `Cannot use template ${id}: ${why}`, {
    details: { path, problems: [why] },
  });
}
