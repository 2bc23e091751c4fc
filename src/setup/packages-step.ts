/** The Debian packages that Mayfly needs on the host: the programs that set-up and image import run. */

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

/** Step: installs what is missing of the host programs, with the system's apt-get. */
export function packagesStep(): Step {
  const missing = () => NEEDED.filter(({ program }) => findTool(program) === undefined).map((entry) => entry.package);
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
