/** A template as REST shows it. */
import type { Template, TemplateApplication } from "../contract/api.ts";
import type { Fingerprint } from "../contract/machine.ts";
import { fingerprintDifferences } from "../machine/fingerprint.ts";
import { shapeOf } from "../machine/profile.ts";
import type { ApplicationPart } from "../template/application.ts";
import type { TemplateManifest } from "../template/manifest.ts";
import type { TemplateEntry } from "./records.ts";
import { hookCommands } from "./warmed.ts";

/** @param here fingerprint of a template that fits this host in its shape. */
export function describeTemplate(manifest: TemplateManifest, entry: TemplateEntry, here: Fingerprint): Template {
  const { fingerprint, application } = manifest;
  const { memoryMiB, vcpus, profile } = shapeOf(fingerprint);
  const { sizeBytes, allocatedBytes, sha256 } = manifest.memory;
  const differences = fingerprintDifferences(fingerprint, here);
  return {
    id: manifest.id,
    name: entry.name,
    createdAt: manifest.createdAt,
    lastUsedAt: entry.lastUsedAt,
    shape: { memoryMiB, vcpus },
    profile,
    fingerprint: { ...fingerprint },
    fingerprintHash: manifest.fingerprintHash,
    compatible: differences.length === 0,
    differences,
    memory: { sizeBytes, allocatedBytes, sha256 },
    deviceStateBytes: manifest.deviceState.sizeBytes,
    buildMs: manifest.buildMs,
    application: application === undefined ? null : describeApplication(application),
    pool: entry.pool,
  };
}

function describeApplication(application: ApplicationPart): TemplateApplication {
  const { image, argv, process, memoryBytes, cpus, ports, ready, recipe, rehearsal, readyMs, warmUpMs } = application;
  return {
    image: image.name,
    imageId: image.id,
    digest: image.digest,
    command: argv,
    workdir: process.workdir,
    user: process.user,
    memoryBytes,
    cpus,
    ports,
    ready,
    hooks: hookCommands(application),
    rehearsal,
    recipe,
    readyMs,
    warmUpMs,
  };
}
