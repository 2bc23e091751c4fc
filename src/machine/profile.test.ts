import { describe, expect, test } from "bun:test";
import { DEVICE_PROFILES, type Fingerprint } from "../contract/machine.ts";
import { deviceArguments, devicesOf, profileFor, profileName, profilesWith, shapeOf } from "./profile.ts";

const root = { path: "/images/a.erofs", format: "raw", readOnly: true } as const;

describe("device profiles", () => {
  test("are chosen by what a VM asks for, the smallest that has it", () => {
    expect(profileFor({ root: false, volumes: false })).toBe("exec");
    expect(profileFor({ root: true, volumes: false })).toBe("disk");
    expect(profileFor({ root: true, volumes: true })).toBe("full");
    expect(profilesWith("exec")).toEqual([...DEVICE_PROFILES]);
    expect(profilesWith("disk")).toEqual(["disk", "net", "full"]);
    expect(profilesWith("full")).toEqual(["full"]);
  });

  test("have the devices that QEMU is told of, each on a bus of its own", () => {
    for (const profile of DEVICE_PROFILES) {
      const text = deviceArguments(profile, { agentFd: 7, disks: {} });
      const drivers = text.flatMap((word) => /"driver":"(virtio-[a-z]+-device)"/.exec(word)?.[1] ?? []);
      expect(drivers).toEqual(devicesOf(profile).map(({ driver }) => driver));
      const buses = text.flatMap((word) => /"bus":"(virtio-mmio-bus\.\d)"/.exec(word)?.[1] ?? []);
      expect(new Set(buses).size).toBe(devicesOf(profile).length);
      expect(text.filter((word) => word.startsWith("socket,id=agent,fd=7"))).toHaveLength(1);
    }
  });

  test("put disks on their files, and have no place for those that they lack", () => {
    expect(deviceArguments("disk", { agentFd: 7, disks: { root } }).join()).toContain(root.path);
    expect(() => deviceArguments("exec", { agentFd: 7, disks: { root } })).toThrow("no place for the disk root");
  });

  test("are told from fingerprints; what is of before is none that fits", () => {
    const fingerprint = { memoryMiB: 256, vcpus: 2, machineProfile: profileName("disk") } as Fingerprint;
    expect(shapeOf(fingerprint)).toEqual({ memoryMiB: 256, vcpus: 2, profile: "disk" });
    const old = shapeOf({ ...fingerprint, machineProfile: "microvm-8slot-4" });
    expect(profileName(old.profile)).not.toBe("microvm-8slot-4");
  });
});
