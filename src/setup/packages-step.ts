/** The Debian packages that Mayfly needs on the host: the programs that set-up and image import run, and those that images of registries want. */

import { MayflyError } from "../contract/errors.ts";
import { isRoot } from "../sys/paths.ts";
import { findTool } from "../sys/tool.ts";
import { installPackages } from "./debian.ts";
import type { Step } from "./step.ts";

/** Programs that must be there, with the package that has each. */
const NEEDED: readonly { program: string; package: string }[] = [
  { program: "cpio", package: "cpio" },
  { program: "gcc", package: "gcc" },
  { program: "make", package: "make" },
  { program: "mkfs.erofs", package: "erofs-utils" },
  { program: "mkfs.ext4", package: "e2fsprogs" },
  { program: "musl-gcc", package: "musl-tools" },
  { program: "xz", package: "xz-utils" },
];

/** Programs that only `pull` and `build` run, and that layers compressed with zstd need: VMs work without them. */
const WANTED: readonly { program: string; package: string }[] = [
  { program: "skopeo", package: "skopeo" },
  { program: "buildah", package: "buildah" },
  { program: "zstd", package: "zstd" },
];

/** Step: installs what is missing of the host programs, with the system's apt-get. */
export function packagesStep(): Step {
  const missing = () => missingOf(NEEDED);
  return {
    name: "Debian packages",
    async pending() {
      const packages = missing();
      return packages.length === 0 ? undefined : `${packages.join(", ")} missing`;
    },
    async run(context) {
      await installPackages(missing(), context);
    },
  };
}

/**
 * Step: installs what pulling and building images needs besides. Where that cannot be had the set-up goes on: those commands say what they
 * lack.
 */
export function imagePackagesStep(): Step {
  const missing = () => missingOf(WANTED);
  return {
    name: "Debian packages for images",
    async pending() {
      const packages = missing();
      return packages.length === 0 || !isRoot() ? undefined : `${packages.join(", ")} missing`;
    },
    async run(context) {
      try {
        await installPackages(missing(), context);
      } catch (error) {
        if (!(error instanceof MayflyError) || error.code === "cancelled") throw error;
        context.report(`${missing().join(", ")} cannot be had now: pull and build will ask for them`);
      }
    },
  };
}

function missingOf(programs: readonly { program: string; package: string }[]): string[] {
  return programs.filter(({ program }) => findTool(program) === undefined).map((entry) => entry.package);
}
