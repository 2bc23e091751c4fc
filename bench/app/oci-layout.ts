/** Writes an OCI image layout of uncompressed layers (OCI image specification 1.0: image-layout, manifest, config). */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { makeDirectory, movePath, writeText } from "../../src/sys/paths.ts";
import { sha256File } from "../../src/sys/publish.ts";

/** `config` of an image configuration, as much as the services need. */
export interface LayoutConfig {
  Cmd?: readonly string[];
  Entrypoint: readonly string[];
  Env: readonly string[];
  WorkingDir: string;
  User: string;
  ExposedPorts: Readonly<Record<string, object>>;
}

/** What points to a blob. */
interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
}

const TYPE = "application/vnd.oci.image";

/**
 * Makes the layout in a directory.
 * @param layers tarballs, the lowest first, on the same file system; they are moved.
 */
export async function writeOciLayout(
  directory: string,
  layers: readonly string[],
  config: LayoutConfig,
): Promise<void> {
  const blobs = `${directory}/blobs/sha256`;
  await makeDirectory(blobs);
  const writeBlob = async (mediaType: string, value: object): Promise<Descriptor> => {
    const text = JSON.stringify(value);
    const hash = createHash("sha256").update(text).digest("hex");
    await writeText(`${blobs}/${hash}`, text);
    return { mediaType, digest: `sha256:${hash}`, size: Buffer.byteLength(text) };
  };
  const described: Descriptor[] = [];
  for (const path of layers) {
    const hash = await sha256File(path);
    const { size } = await stat(path);
    await movePath(path, `${blobs}/${hash}`);
    described.push({ mediaType: `${TYPE}.layer.v1.tar`, digest: `sha256:${hash}`, size });
  }
  const configured = await writeBlob(`${TYPE}.config.v1+json`, {
    ...{ architecture: "amd64", os: "linux", config },
    rootfs: { type: "layers", diff_ids: described.map(({ digest }) => digest) },
    history: described.map(() => ({ created_by: "mayfly bench app" })),
  });
  const mediaType = `${TYPE}.manifest.v1+json`;
  const manifest = await writeBlob(mediaType, { schemaVersion: 2, mediaType, config: configured, layers: described });
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  await writeText(
    `${directory}/index.json`,
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  await writeText(`${directory}/oci-layout`, JSON.stringify({ imageLayoutVersion: "1.0.0" }));
}
