import { expect, test } from "bun:test";
import { listProfiles } from "../engine/qemu-costs.ts";
import { formatProfiles, type ProfileCost } from "./profiles.ts";

const measured: ProfileCost = {
  profile: "p-1",
  devices: [
    { name: "serial", driver: "virtio-serial-device", modules: ["virtio_console"], feature: "all", costBytes: 1000 },
    { name: "root", driver: "virtio-blk-device", modules: ["virtio_blk"], feature: "images", costBytes: 2000 },
  ],
  qemu: { name: "stock", kind: "full", version: "10.0.2" },
  libraries: ["libc.so.6"],
  accelerator: "tcg",
  readyMs: 43.21,
  uniqueMemoryBytes: 12 * 2 ** 20,
  guestUniqueMemoryBytes: 512 * 2 ** 10,
  deviceStateBytes: 9 * 2 ** 10,
  systemCalls: null,
  problem: null,
};

test("a line for each QEMU, and what is in the profile once", () => {
  const nothing = { readyMs: null, uniqueMemoryBytes: null, guestUniqueMemoryBytes: null, deviceStateBytes: null };
  const failed: ProfileCost = { ...measured, ...nothing, accelerator: null, problem: "it does not run" };
  const lines = formatProfiles([measured, failed]).trimEnd().split("\n");
  expect(lines).toHaveLength(4);
  expect(lines[1]?.split(/ {2,}/)).toEqual(["p-1", "stock", "tcg", "43.2 ms", "12MiB", "512KiB", "9KiB", "1", "all"]);
  expect(lines[2]).toEndWith("it does not run");
  expect(lines[3]).toBe("p-1: serial (virtio-serial-device), root (virtio-blk-device)");
});

test("profiles have ever more devices, the agent's channel first", () => {
  const names = listProfiles().map(({ profile, devices }) => [profile, ...devices.map(({ name }) => name)].join(" "));
  expect(names).toEqual([
    "exec serial",
    "disk serial root scratch",
    "net serial network root scratch",
    "full serial network entropy root scratch volume0 volume1 volume2",
  ]);
});
