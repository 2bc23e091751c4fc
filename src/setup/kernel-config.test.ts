/** The fragment of the minimal kernel, and what the build makes of options that Kconfig has dropped. */
import { expect, test } from "bun:test";
import fragmentText from "../../guest/kernel/kernel.config" with { type: "text" };
import { MayflyError } from "../contract/errors.ts";
import { parseKernelConfig, requireOptions, withNewNames } from "./kernel-config.ts";

function problemsOf(act: () => unknown): readonly string[] {
  try {
    act();
  } catch (error) {
    if (error instanceof MayflyError) return error.details.problems ?? [];
    throw error;
  }
  return [];
}

test("the fragment is read, and has what containers need", () => {
  const fragment = parseKernelConfig(fragmentText);
  const needed = [
    ...[
      "EROFS_FS_ZIP",
      "OVERLAY_FS",
      "EXT4_FS",
      "TMPFS",
      "VIRTIO_MMIO",
      "VIRTIO_BLK",
      "VIRTIO_CONSOLE",
      "SECCOMP_FILTER",
    ],
    ...[
      "MEMCG",
      "CFS_BANDWIDTH",
      "CGROUP_PIDS",
      "PID_NS",
      "USER_NS",
      "NET_NS",
      "IO_URING",
      "POSIX_MQUEUE",
      "INET",
      "IPV6",
    ],
    ...["SMP", "KVM_GUEST", "PVH", "ACPI", "NO_HZ_IDLE"],
  ];
  for (const name of needed) expect([name, fragment.get(`CONFIG_${name}`)]).toEqual([name, "y"]);
  expect(fragment.get("CONFIG_NR_CPUS")).toBe("8");
});

test("every group of the fragment says what it is for", () => {
  for (const group of fragmentText.split("\n\n").slice(1)) expect(group.startsWith("# ")).toBe(true);
});

test("values, options that are off, and comments are told apart", () => {
  const config = parseKernelConfig(
    '# About CONFIG_X.\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="-x y"\nCONFIG_D=8\n\n',
  );
  expect([...config]).toEqual([
    ["CONFIG_A", "y"],
    ["CONFIG_B", "n"],
    ["CONFIG_C", '"-x y"'],
    ["CONFIG_D", "8"],
  ]);
});

test("what is no option, or is there twice, is named", () => {
  expect(problemsOf(() => parseKernelConfig("CONFIG_A=y\nCONFG_B=y\nCONFIG_A=n\n"))).toEqual([
    "line 2 is no option: CONFG_B=y",
    "line 3 has CONFIG_A once more",
  ]);
});

test("an option that Kconfig has dropped or changed is named, all of them at once", () => {
  const fragment = parseKernelConfig("CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=8\n# CONFIG_D is not set\nCONFIG_E=y\n");
  const final = parseKernelConfig("CONFIG_A=y\nCONFIG_B=y\nCONFIG_D=y\n# CONFIG_E is not set\n");
  expect(problemsOf(() => requireOptions(fragment, final, "6.1"))).toEqual([
    "CONFIG_B is y, not m",
    "CONFIG_C is n, not 8",
    "CONFIG_D is y, not n",
    "CONFIG_E is n, not y",
  ]);
  expect(problemsOf(() => requireOptions(fragment, fragment, "6.1"))).toEqual([]);
});

test("an option that newer kernels call otherwise is asked for, and found, by either name", () => {
  const text = "CONFIG_RETPOLINE=y\nCONFIG_A=y\n";
  expect(withNewNames(text)).toBe(`${text}CONFIG_MITIGATION_RETPOLINE=y\n`);
  const fragment = parseKernelConfig(text);
  requireOptions(fragment, parseKernelConfig("CONFIG_MITIGATION_RETPOLINE=y\nCONFIG_A=y\n"), "6.12");
  const without = parseKernelConfig("# CONFIG_MITIGATION_RETPOLINE is not set\nCONFIG_A=y\n");
  expect(problemsOf(() => requireOptions(fragment, without, "6.12"))).toEqual(["CONFIG_RETPOLINE is n, not y"]);
});
