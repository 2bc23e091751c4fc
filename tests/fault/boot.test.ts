/** A parent that does not boot: whatever is wrong with its kernel or initramfs, the error says so and shows the console. */
import { afterEach, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { HostArtifacts } from "../../src/contract/machine.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, hostArtifacts, newDirectory } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { withInit } from "../support/faulty-artifacts.ts";

/** Longest that a guest may take to its end, or to be given up. */
const LIMIT_MS = 45_000;

describeVms("a parent", () => {
  let vms: TestEngine | undefined;
  afterEach(async () => {
    expect(await vms?.leftBehind()).toEqual(NOTHING_LEFT);
    expect(vms?.engine.listTemplates()).toEqual([]);
    await vms?.[Symbol.asyncDispose]();
  });

  const failure = async (artifacts: HostArtifacts, limitMs = LIMIT_MS) => {
    await vms?.[Symbol.asyncDispose]();
    vms = await TestEngine.open({ artifacts, templates: [] });
    return rejection(vms.engine.buildTemplate({}, { deadline: soon(limitMs) }));
  };

  test("whose agent never answers fails at the deadline, with the console's end", async () => {
    const asleep = withInit("echo the init is asleep >/dev/console; exec sleep 1000");
    let error = await failure(asleep, 8_000);
    // On a busy machine its init may not have run by then.
    if (!String(error.details.consoleTail).includes("asleep")) error = await failure(asleep, LIMIT_MS);
    expect({ code: error.code, stage: error.stage }).toEqual({ code: "boot_failed", stage: "boot" });
    expect(error.message).toContain("the guest agent did not answer");
    expect(error.details.consoleTail).toContain("the init is asleep");
  }, 90_000);

  test("that panics fails at once, with the panic", async () => {
    const begunMs = performance.now();
    const error = await failure(withInit("echo last words >/dev/console; exit 3"));
    expect(error.code).toBe("boot_failed");
    expect(error.details.consoleTail).toContain("Kernel panic");
    expect(error.details.consoleTail).toContain("last words");
    expect(error.message).toContain("QEMU ended");
    expect(performance.now() - begunMs).toBeLessThan(LIMIT_MS - 2000);
  });

  test("whose initramfs is none panics", async () => {
    const path = join(newDirectory("broken"), "initramfs.cpio");
    writeFileSync(path, Buffer.alloc(1 << 20, 0x5a));
    const error = await failure({ ...hostArtifacts(), initramfs: { path, sha256: "0".repeat(64) } });
    expect(error.code).toBe("boot_failed");
    expect(error.details.consoleTail).toContain("panic");
  });

  test("whose agent breaks the protocol fails with that", async () => {
    // Answers the hello as an agent does, then sends what is no frame.
    const liar = `
      mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
      for module in $(sed 's/[?#]//g' /lib/modules.list); do insmod $module; done
      until ls /dev/vport*p1 >/dev/null 2>&1; do sleep 0.05; done
      exec 3<>$(ls /dev/vport*p1)
      dd bs=1 count=40 of=/hello <&3 2>/dev/null
      {
        head -c 16 /hello
        printf '\\247\\002\\0\\0'; dd if=/hello bs=1 skip=20 count=4 2>/dev/null; printf '\\0\\0\\0\\0\\054\\0\\0\\0'
        printf '\\001\\0\\0\\0\\0\\0\\001\\0\\0\\0\\004\\0\\100\\0\\0\\0\\0\\0\\200\\0\\0\\020\\0\\0'
        head -c 16 /dev/zero; printf '\\0\\0\\0\\0'
      } > /answer
      cat /answer >&3
      echo told a lie >/dev/console
      yes nonsense | head -c 5000 >&3
      exec sleep 1000
    `;
    const error = await failure(withInit(liar));
    expect({ code: error.code, message: error.message }).toMatchObject({ code: "agent_protocol_violation" });
  });

  test("whose kernel is none fails with what QEMU says", async () => {
    const path = join(newDirectory("broken"), "vmlinuz");
    writeFileSync(path, "this is no kernel");
    const kernel = { path, version: "0", sha256: "0".repeat(64) };
    const error = await failure({ ...hostArtifacts(), kernel }, 8_000);
    expect(error.code).toBe("boot_failed");
  });

  test("whose kernel is cut off fails", async () => {
    const { kernel } = hostArtifacts();
    const path = join(newDirectory("broken"), "vmlinuz");
    writeFileSync(path, readFileSync(kernel.path).subarray(0, 2 << 20));
    const error = await failure({ ...hostArtifacts(), kernel: { ...kernel, path, sha256: "1".repeat(64) } }, 8_000);
    expect(error.code).toBe("boot_failed");
  });

  test("whose kernel is missing fails, and says which", async () => {
    const kernel = { path: "/no/such/vmlinuz", version: "0", sha256: "0".repeat(64) };
    const error = await failure({ ...hostArtifacts(), kernel });
    expect({ code: error.code, named: error.message.includes("/no/such/vmlinuz") }).toEqual({
      code: "kernel_not_found",
      named: true,
    });
  });
});
