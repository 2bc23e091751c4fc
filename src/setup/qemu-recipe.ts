/** The recipe of a lean QEMU, as data: what is in the folder `qemu`, and the flags of compiler and linker (docs/adr/0030-lean-qemu.md). */

import { createHash } from "node:crypto";
import configureText from "../../qemu/configure.list" with { type: "text" };
import devicesText from "../../qemu/devices.mak" with { type: "text" };
import deviceTreeText from "../../qemu/fdt_create.c" with { type: "text" };
import packagesText from "../../qemu/packages.list" with { type: "text" };

/** Raise it when how the build is done changes: it is part of a QEMU's name. */
const RECIPE = 1;

/** QEMU's list of devices. */
export const DEVICES = devicesText;
/** C of the function that is linked in the place of libfdt's. */
export const DEVICE_TREE_SOURCE = deviceTreeText;
/** What a build is asked for. */
export interface Variant {
  /** Whether the program lies at another address in each process, which costs 0.6 MB and 1 to 2 ms each. */
  pie: boolean;
}

/** Options of QEMU's configure. */
export function configureOptions({ pie }: Variant): string[] {
  return [...entries(configureText), pie ? "--enable-pie" : "--disable-pie"];
}

/** Debian packages that a build needs. */
export const BUILD_PACKAGES: readonly string[] = entries(packagesText);

/** What is compiled and linked how. */
export interface Flags {
  compiler: string;
  linker: string;
}

/**
 * Flags of compiler and linker.
 *
 * @param directory where the build is done, which must not show in the result.
 * @param object the compiled {@link DEVICE_TREE_SOURCE}.
 */
export function flagsFor(directory: string, object: string): Flags {
  return {
    // Whatever nothing refers to is left out, function by function.
    compiler: [
      "-O2",
      "-fno-plt",
      "-ffunction-sections",
      "-fdata-sections",
      `-ffile-prefix-map=${directory}=/qemu`,
    ].join(" "),
    linker: ["-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-s", "-Wl,--wrap=fdt_create", object].join(" "),
  };
}

/**
 * Hash of all that decides about the bytes of a QEMU: equal ones give equal programs.
 *
 * @param inputs versions of the sources, of meson, and of the compiler with what is linked in.
 * @returns lower-case hexadecimal SHA-256.
 */
export function recipeHash(variant: Variant, inputs: readonly string[]): string {
  const hash = createHash("sha256");
  const { compiler, linker } = flagsFor("", "");
  const parts = [
    String(RECIPE),
    ...configureOptions(variant),
    devicesText,
    deviceTreeText,
    compiler,
    linker,
    ...inputs,
  ];
  for (const part of parts) hash.update(`${part}\0`);
  return hash.digest("hex");
}

/** Lines that are not empty and no comments. */
function entries(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}
