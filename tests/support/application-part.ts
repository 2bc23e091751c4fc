/** For tests: a manifest of a template with an application, as one is published. */
import type { ApplicationPart } from "../../src/template/application.ts";
import type { TemplateManifest } from "../../src/template/manifest.ts";

export const sampleApplication: ApplicationPart = {
  image: {
    name: "localhost/web:1",
    id: `img_${"b3".repeat(13)}`,
    digest: `sha256:${"f".repeat(64)}`,
    configDigest: null,
    fstype: "erofs",
  },
  main: { object: 536_870_911, pid: 17, output: 120, error: 0 },
  argv: ["/bin/web", "--port", "8080"],
  process: { env: { A: "b=c\nd" }, workdir: "/srv", user: "web", capabilities: "2818844155" },
  user: { uid: 1000, gid: 1000, groups: [4], home: "/srv" },
  memoryBytes: 120 << 20,
  cpus: 0.5,
  pids: 100,
  labels: { a: "b" },
  stopSignal: 3,
  health: { test: ["CMD", "true"], retries: 2 },
  ports: [8080],
  ready: { kind: "http", port: 8080, path: "/health?full=1" },
  hooks: ["/etc/mayfly/post-clone.d/10-seed"],
  rehearsal: null,
  recipe: { image: "web:1", warmUp: [{ kind: "exec", command: ["true"] }], postClone: ["/bin/sh", "-c", "echo"] },
  readyMs: 812.5,
  warmUpMs: 90,
};

export const sampleManifest: TemplateManifest = {
  id: `tpl_${"a2".repeat(13)}`,
  createdAt: "2026-01-02T03:04:05.678Z",
  buildMs: 4321,
  fingerprint: {
    qemuVersion: "10.0.2",
    qemuBinary: "/usr/bin/qemu-system-x86_64 28686560 1757080993000",
    accelerator: "tcg",
    cpuModel: "max",
    hostCpu: "",
    machineProfile: "microvm-8slot-1",
    memoryMiB: 128,
    vcpus: 1,
    kernelSha256: "a".repeat(64),
    initramfsSha256: "b".repeat(64),
    kernelCommandLine: "console=ttyS0 tsc_early_khz=2596100",
  },
  fingerprintHash: "c".repeat(64),
  memory: { sizeBytes: 128 << 20, allocatedBytes: 40 << 20, nonZeroPages: 9000, sha256: "d".repeat(64) },
  deviceState: { sizeBytes: 9123, sha256: "e".repeat(64) },
};
