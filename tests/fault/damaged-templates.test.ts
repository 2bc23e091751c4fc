/** Templates that are truncated, flipped, replaced or do not fit: never cloned, each with a typed error, and made again. */
import { afterEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import type { Event } from "../../src/contract/api.ts";
import { decodeManifest, encodeManifest } from "../../src/template/manifest.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, newDirectory, plantTemplate } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

/** Flips one bit of a file in the middle of its first bytes that are not zero. */
function flip(path: string): void {
  const fd = openSync(path, "r+");
  const block = Buffer.alloc(4096);
  for (let at = 0; readSync(fd, block, 0, block.length, at) > 0; at += block.length) {
    const index = block.findIndex((byte) => byte !== 0);
    if (index < 0) continue;
    writeSync(fd, Buffer.of((block[index] ?? 0) ^ 0x10), 0, 1, at + index);
    break;
  }
  closeSync(fd);
}

describeVms("a template", () => {
  let vms: TestEngine | undefined;
  afterEach(async () => {
    if (vms === undefined) return;
    expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    await vms[Symbol.asyncDispose]();
    vms = undefined;
  });

  /** A state directory with a template in it. */
  const planted = async () => {
    const root = newDirectory("damaged");
    const stateDir = join(root, "state");
    await plantTemplate(stateDir);
    const [id = ""] = readdirSync(join(stateDir, "templates"));
    return { root, id, file: (name: string) => join(stateDir, "templates", id, name) };
  };

  const DAMAGES: readonly { name: string; file: string; damage: (path: string) => void }[] = [
    { name: "whose manifest is cut off", file: "manifest.json", damage: (path) => truncateSync(path, 200) },
    { name: "whose manifest is empty", file: "manifest.json", damage: (path) => truncateSync(path, 0) },
    { name: "whose manifest has a flipped bit", file: "manifest.json", damage: flip },
    { name: "whose manifest is gone", file: "manifest.json", damage: (path) => rmSync(path) },
    { name: "whose device state is cut off", file: "device-state", damage: (path) => truncateSync(path, 100) },
    { name: "whose device state has a flipped bit", file: "device-state", damage: flip },
    { name: "whose device state is gone", file: "device-state", damage: (path) => rmSync(path) },
    { name: "whose memory is cut off", file: "memory", damage: (path) => truncateSync(path, 1 << 20) },
    { name: "whose memory is gone", file: "memory", damage: (path) => rmSync(path) },
  ];

  describe("that is damaged when the engine is opened", () => {
    test.each(DAMAGES)("$name is not used; it can be verified and removed", async ({ file, damage }) => {
      const { root, id, file: path } = await planted();
      damage(path(file));
      vms = await TestEngine.open({ root, templates: [] });
      expect(vms.engine.listTemplates()).toEqual([]);
      const { ok, problems } = await vms.engine.verifyTemplate(id, soon());
      expect(ok).toBe(false);
      expect(problems.join()).toMatch(/manifest|state|memory/);
      await vms.engine.removeTemplate(id, { force: false });
      expect(readdirSync(join(root, "state", "templates"))).toEqual([]);
      // So that not every one of these builds a template.
      await plantTemplate(vms.stateDir);
      vms = await vms.reopen();
    });

    test("is built again for the next request", async () => {
      const { root, id, file } = await planted();
      truncateSync(file("device-state"), 10);
      vms = await TestEngine.open({ root, templates: [] });
      const { vm, stdout } = await vms.run(["echo", "from a new one"]);
      expect(stdout).toBe("from a new one\n");
      expect(vm.templateId).not.toBe(id);
    });
  });

  describe("that is damaged while the engine runs", () => {
    for (const { name, damage } of [
      { name: "whose memory is cut off", damage: (path: string) => truncateSync(path, 1 << 20) },
      { name: "whose memory is gone", damage: (path: string) => renameSync(path, `${path}.gone`) },
      {
        name: "whose memory was replaced",
        damage: (path: string) => {
          renameSync(path, `${path}.old`);
          writeFileSync(path, "");
          truncateSync(path, 128 << 20);
        },
      },
    ]) {
      test(`${name} is refused, and not used again`, async () => {
        vms = await TestEngine.open({ pool: { blocked: 1, warm: 0, parent: false } });
        const events: Event[] = [];
        vms.engine.subscribe((event) => events.push(event));
        const [template] = vms.engine.listTemplates();
        const id = template?.id ?? "";
        damage(join(vms.stateDir, "templates", id, "memory"));
        const error = await rejection(vms.run(["true"]));
        expect({ code: error.code, stage: error.stage }).toEqual({ code: "template_corrupt", stage: "plan" });
        expect(events.filter(({ type }) => type === "template.damaged").map((event) => event.id)).toEqual([id]);
        expect((await vms.engine.verifyTemplate(id, soon())).ok).toBe(false);
        expect(vms.engine.listTemplates()).toEqual([]);
        await vms.processes(0);
        await vms.engine.removeTemplate(id, { force: false });
        await plantTemplate(vms.stateDir);
        vms = await vms.reopen();
      });
    }

    test("is built again for the next request", async () => {
      vms = await TestEngine.open();
      const [template] = vms.engine.listTemplates();
      const id = template?.id ?? "";
      truncateSync(join(vms.stateDir, "templates", id, "memory"), 0);
      expect((await rejection(vms.run(["true"]))).code).toBe("template_corrupt");
      expect((await vms.run(["true"])).vm.templateId).not.toBe(id);
    });

    test("by a flipped bit in its memory is found by verification, with both checksums", async () => {
      vms = await TestEngine.open();
      const [template] = vms.engine.listTemplates();
      const path = join(vms.stateDir, "templates", template?.id ?? "", "memory");
      flip(path);
      const { ok, problems } = await vms.engine.verifyTemplate(template?.id ?? "", soon());
      expect({ ok, named: problems.join().includes(template?.memory.sha256 ?? "none") }).toEqual({
        ok: false,
        named: true,
      });
      flip(path);
      expect((await vms.engine.verifyTemplate(template?.id ?? "", soon())).ok).toBe(true);
    });
  });

  test("whose device state QEMU does not take is an error with QEMU's words", async () => {
    const { root, file } = await planted();
    const manifest = decodeManifest(readFileSync(file("manifest.json")), "manifest");
    const state = readFileSync(file("device-state"));
    state.fill(0xff, Math.floor(state.length / 2));
    rmSync(file("device-state"));
    writeFileSync(file("device-state"), state);
    const sha256 = createHash("sha256").update(state).digest("hex");
    rmSync(file("manifest.json"));
    writeFileSync(
      file("manifest.json"),
      encodeManifest({ ...manifest, deviceState: { sizeBytes: state.length, sha256 } }),
    );
    vms = await TestEngine.open({ root, templates: [] });
    const error = await rejection(vms.run(["true"], {}, 10_000));
    expect(error.code).toBe("qemu_exited");
    expect(error.details.stderrTail).not.toBe("");
    await vms.engine.removeTemplate(manifest.id, { force: true });
    await plantTemplate(vms.stateDir);
    vms = await vms.reopen();
  });

  test("of another machine is not used, and is pruned", async () => {
    const { root, id, file } = await planted();
    const manifest = decodeManifest(readFileSync(file("manifest.json")), "manifest");
    rmSync(file("manifest.json"));
    const fingerprint = { ...manifest.fingerprint, qemuVersion: "9.9.9" };
    const other = { ...manifest, fingerprint, fingerprintHash: "0".repeat(64) };
    const foreign = `tpl_${"a".repeat(26)}`;
    writeFileSync(file("manifest.json"), encodeManifest({ ...other, id: foreign }));
    renameSync(file(""), join(root, "state", "templates", foreign));
    await plantTemplate(join(root, "state"));
    vms = await TestEngine.open({ root, templates: [] });
    const listed = vms.engine.listTemplates().map((template) => `${template.id} ${template.compatible}`);
    expect(listed).toEqual([`${foreign} false`, `${id} true`]);
    expect((await vms.run(["true"])).vm.templateId).toBe(id);
    expect((await vms.engine.prune(soon())).removed).toEqual([foreign]);
    expect(vms.engine.listTemplates().map((template) => template.id)).toEqual([id]);
  });

  test("that was interrupted while it was built or removed is swept away", async () => {
    const { root, id } = await planted();
    const templates = join(root, "state", "templates");
    renameSync(join(templates, id), join(templates, `.unfinished-${id}-abc`));
    vms = await TestEngine.open({ root, templates: [] });
    expect(readdirSync(templates)).toEqual([]);
    await plantTemplate(vms.stateDir);
    vms = await vms.reopen();
  });
});
