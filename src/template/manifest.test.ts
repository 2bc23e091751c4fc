import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { sampleApplication as application, sampleManifest as manifest } from "../../tests/support/application-part.ts";
import { MayflyError } from "../contract/errors.ts";
import { decodeManifest, encodeManifest } from "./manifest.ts";

const text = encodeManifest(manifest);

/** The problem with some bytes: the manifest's error code, or none. */
function outcome(bytes: Uint8Array): { code: string; message: string } {
  try {
    expect(decodeManifest(bytes, "/the/manifest.json")).toEqual(manifest);
    return { code: "none", message: "" };
  } catch (error) {
    if (error instanceof MayflyError) return { code: error.code, message: error.message };
    throw error;
  }
}

/** A manifest with its checksum made right again. */
function resealed(change: (body: Record<string, unknown>) => void): Uint8Array {
  const { checksum: _old, ...body } = JSON.parse(text);
  change(body);
  const checksum = createHash("sha256").update(JSON.stringify(body)).digest("hex");
  return Buffer.from(JSON.stringify({ ...body, checksum }));
}

test("a manifest comes back as it was", () => {
  expect(outcome(Buffer.from(text)).code).toBe("none");
});

test("so does one with an application", () => {
  const whole = { ...manifest, application };
  expect(decodeManifest(Buffer.from(encodeManifest(whole)), "here")).toEqual(whole);
});

/** What Mayfly 0.1 has written: templates outlive the daemon that made them. */
test("a manifest from before there were applications is read", () => {
  const old = `{"magic":"mayfly-template","format":1,"id":"tpl_a2a2a2a2a2a2a2a2a2a2a2a2a2","createdAt":"2026-01-02T03:04:05.678Z","buildMs":4321,"fingerprint":{"qemuVersion":"10.0.2","qemuBinary":"/usr/bin/qemu-system-x86_64 28686560 1757080993000","accelerator":"tcg","cpuModel":"max","hostCpu":"","machineProfile":"microvm-8slot-1","memoryMiB":128,"vcpus":1,"kernelSha256":"${"a".repeat(64)}","initramfsSha256":"${"b".repeat(64)}","kernelCommandLine":"console=ttyS0 tsc_early_khz=2596100"},"fingerprintHash":"${"c".repeat(64)}","memory":{"sizeBytes":134217728,"allocatedBytes":41943040,"nonZeroPages":9000,"sha256":"${"d".repeat(64)}"},"deviceState":{"sizeBytes":9123,"sha256":"${"e".repeat(64)}"}`;
  const checksum = createHash("sha256").update(`${old}}`).digest("hex");
  expect(decodeManifest(Buffer.from(`${old},"checksum":"${checksum}"}`), "here")).toEqual(manifest);
});

test("any other bytes are a corrupt manifest, never a crash", () => {
  const original = Buffer.from(text);
  const flipped = fc.tuple(fc.nat({ max: original.length - 1 }), fc.integer({ min: 1, max: 255 })).map(([at, bits]) => {
    const bytes = Buffer.from(original);
    bytes[at] = (bytes[at] ?? 0) ^ bits;
    return bytes;
  });
  const cut = fc.nat({ max: original.length - 2 }).map((length) => original.subarray(0, length));
  const grown = fc.uint8Array({ minLength: 1 }).map((more) => Buffer.concat([original, more]));
  const noise = fc.oneof(
    fc.uint8Array(),
    fc.json().map((json) => Buffer.from(json)),
  );
  fc.assert(
    fc.property(fc.oneof(flipped, cut, grown, noise), (bytes) => {
      const { code, message } = outcome(bytes);
      if (code === "none") return; // White space may differ.
      expect(code).toBe("template_corrupt");
      expect(message).toContain("/the/manifest.json");
    }),
    { numRuns: 500 },
  );
});

test("a flipped bit outside of white space is always found", () => {
  const original = Buffer.from(text);
  for (let at = 0; at < original.length; at += 7) {
    if (/\s/.test(String.fromCharCode(original[at] ?? 0))) continue;
    const bytes = Buffer.from(original);
    bytes[at] = (bytes[at] ?? 0) ^ 0x01;
    expect(outcome(bytes).code).toBe("template_corrupt");
  }
});

test("a sound checksum over wrong contents names every problem", () => {
  const problems = (change: (body: Record<string, unknown>) => void) => {
    const { code, message } = outcome(resealed(change));
    expect(code).toBe("template_corrupt");
    return message;
  };
  expect(problems((body) => (body["magic"] = "other"))).toContain("magic");
  expect(problems((body) => (body["format"] = 2))).toContain("format");
  expect(problems((body) => (body["id"] = "../../etc"))).toContain("id");
  expect(problems((body) => delete body["memory"])).toContain("memory");
  expect(problems((body) => (body["surprise"] = 1))).toContain("surprise");
  const two = problems((body) => {
    body["fingerprint"] = { ...manifest.fingerprint, memoryMiB: -1, accelerator: "abacus" };
  });
  expect(two).toContain("memoryMiB");
  expect(two).toContain("accelerator");
  const wrong = { ...application, argv: [], hooks: ["../x"], main: { ...application.main, pid: 0 } };
  const three = problems((body) => (body["application"] = wrong));
  for (const member of ["application.argv", "application.hooks.0", "application.main.pid"])
    expect(three).toContain(member);
});

test("a manifest beyond any size is not parsed, and not written", () => {
  expect(outcome(Buffer.alloc(2_000_000, 0x20)).message).toContain("2000000 bytes");
  const env = { A: "x".repeat(1 << 20) };
  const process = { ...application.process, env };
  expect(() => encodeManifest({ ...manifest, application: { ...application, process } })).toThrow("at most 1048576");
});
