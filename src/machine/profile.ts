/**
 * Device profiles: which devices the QEMUs of a template and of all of its clones have, in a fixed order. A VM gets the smallest one that has what it
 * asks for, so that it does not pay for devices that nobody uses.
 */
import { DEVICE_PROFILES, type DeviceProfile, type Fingerprint, type Shape } from "../contract/machine.ts";
import { AGENT_CHANNEL } from "./devices/agent-port.ts";
import type { Device, DeviceContext, DeviceName } from "./devices/device.ts";
import { DISKS, type DiskFiles } from "./devices/disk.ts";
import { ENTROPY } from "./devices/entropy.ts";
import { NETWORK } from "./devices/network.ts";

/** Changes whenever a device, its order or a machine option does. */
const VERSION = 5;

/** All devices, in the order of their options. */
const DEVICES: readonly Device<DiskFiles>[] = [AGENT_CHANNEL, NETWORK, ENTROPY, ...DISKS];

/** What each profile has. */
const PROFILES: Readonly<Record<DeviceProfile, readonly DeviceName[]>> = {
  exec: ["serial"],
  disk: ["serial", "root", "scratch"],
  net: ["serial", "root", "scratch", "network"],
  full: DEVICES.map(({ name }) => name),
};

/** What a VM asks for. */
export interface DeviceNeeds {
  /** A root file system, and with it a disk for its changes perhaps. */
  root: boolean;
  /** Volumes, or directories of the host. */
  volumes: boolean;
}

/** The smallest profile with what a VM asks for. */
export function profileFor({ root, volumes }: DeviceNeeds): DeviceProfile {
  if (volumes) return "full";
  return root ? "disk" : "exec";
}

/** Profiles that have all that one has, the smallest first: itself, and those that can stand in for it. */
export function profilesWith(profile: DeviceProfile): DeviceProfile[] {
  const has = (other: DeviceProfile) => PROFILES[profile].every((device) => PROFILES[other].includes(device));
  return DEVICE_PROFILES.filter(has);
}

/** Shapes of a size with all devices of one, those with the fewest first. */
export function shapesWith({ profile = "full", ...size }: Shape): Required<Shape>[] {
  return profilesWith(profile).map((other) => ({ ...size, profile: other }));
}

/** The devices of a profile. */
export function devicesOf(profile: DeviceProfile): readonly Device<DiskFiles>[] {
  return DEVICES.filter(({ name }) => PROFILES[profile].includes(name));
}

/** Options of all devices of a profile. */
export function deviceArguments(profile: DeviceProfile, context: DeviceContext<DiskFiles>): string[] {
  const slots: readonly string[] = PROFILES[profile];
  const homeless = Object.keys(context.disks).find((slot) => !slots.includes(slot));
  if (homeless !== undefined) throw new Error(`profile ${profile} has no place for the disk ${homeless}`);
  return devicesOf(profile).flatMap((device) => device.arguments(context));
}

/** A profile as fingerprints name it. */
export function profileName(profile: DeviceProfile): string {
  return `microvm-${profile}-${VERSION}`;
}

/** Size and profile of the machine that a fingerprint is of; a profile of before is taken for a full one, which does not fit. */
export function shapeOf({ memoryMiB, vcpus, machineProfile }: Fingerprint): Required<Shape> {
  const [, name] = /^microvm-([a-z]+)-\d+$/.exec(machineProfile) ?? [];
  return { memoryMiB, vcpus, profile: DEVICE_PROFILES.find((known) => known === name) ?? "full" };
}
