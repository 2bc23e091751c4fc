import { expect, test } from "bun:test";
import type { Fingerprint } from "../contract/machine.ts";
import { fingerprintDifferences, fingerprintHash } from "./fingerprint.ts";

const fingerprint: Fingerprint = {
  qemuVersion: "10.0.2",
  qemuBinary: "/qemu 1 2",
  accelerator: "tcg",
  cpuModel: "max",
  hostCpu: "",
  machineProfile: "p",
  memoryMiB: 128,
  vcpus: 1,
  kernelSha256: "a",
  initramfsSha256: "b",
  kernelCommandLine: "c",
};

test("a hash does not depend on the order of members, and changes with each of them", () => {
  const reversed = Object.fromEntries(Object.entries(fingerprint).reverse()) as unknown;
  expect(fingerprintHash(reversed as Fingerprint)).toBe(fingerprintHash(fingerprint));
  const hashes = Object.keys(fingerprint).map((name) => fingerprintHash({ ...fingerprint, [name]: "other" }));
  expect(new Set([fingerprintHash(fingerprint), ...hashes]).size).toBe(hashes.length + 1);
});

test("differences are named with both values", () => {
  expect(fingerprintDifferences(fingerprint, { ...fingerprint })).toEqual([]);
  expect(fingerprintDifferences({ ...fingerprint, vcpus: 2, cpuModel: "host" }, fingerprint)).toEqual([
    "cpuModel: host in the template, max here",
    "vcpus: 2 in the template, 1 here",
  ]);
});
