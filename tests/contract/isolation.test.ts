/** What keeps a VM's QEMU from the host, from its template and from the other VMs. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Vm } from "../../src/contract/api.ts";
import { TestEngine } from "../support/engine.ts";
import { describeVms, hostArtifacts, readProc } from "../support/engine-host.ts";

const O_ACCMODE = 3;

describeVms("the QEMU of a VM", () => {
  let vms: TestEngine;
  let one: Vm;
  let other: Vm;

  beforeAll(async () => {
    vms = await TestEngine.open();
    [one, other] = await Promise.all([vms.start(), vms.start()]);
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());

  const status = (vm: Vm, field: string) =>
    new RegExp(`^${field}:[ \\t]*(.*)$`, "m")
      .exec(readProc(`/proc/${vm.pid}/status`))?.[1]
      ?.trim()
      .split(/\s+/) ?? [];
  const memoryPath = () => join(vms.stateDir, "templates", one.templateId, "memory");
  /** Runs a shell command as a VM's QEMU would. @returns its exit code. */
  const runAs = async (vm: Vm, script: string) => {
    const ids = ["--uid", status(vm, "Uid")[0] ?? "", "--gid", status(vm, "Gid")[0] ?? ""];
    const command = [hostArtifacts().launcher.path, ...ids, "--", "/bin/sh", "-c", script];
    return Bun.spawn(command, { stdio: ["ignore", "ignore", "ignore"] }).exited;
  };

  test("runs as a user of its own, with no rights of root and no way to them", () => {
    const uids = [one, other].map((vm) => status(vm, "Uid"));
    for (const ids of uids) {
      expect(new Set(ids).size).toBe(1);
      expect(Number(ids[0])).toBeGreaterThan(900_000);
    }
    expect(uids[0]).not.toEqual(uids[1]);
    for (const vm of [one, other]) {
      expect(status(vm, "Gid")).toEqual(Array(4).fill("900000"));
      expect(status(vm, "Groups")).toEqual([""]);
      expect(status(vm, "NoNewPrivs")).toEqual(["1"]);
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapAmb"]) expect(Number(`0x${status(vm, set)[0]}`)).toBe(0);
    }
  });

  test("maps its template's memory privately, from a descriptor that cannot write", () => {
    const mapped = readProc(`/proc/${one.pid}/maps`)
      .split("\n")
      .filter((line) => line.endsWith(memoryPath()));
    expect(mapped.length).toBeGreaterThan(0);
    for (const line of mapped) expect(line.split(" ")[1]?.[3]).toBe("p");
    for (const fd of readdirSync(`/proc/${one.pid}/fd`)) {
      if (readlinkSync(`/proc/${one.pid}/fd/${fd}`) !== memoryPath()) continue;
      const flags = /^flags:\s*(\d+)/m.exec(readProc(`/proc/${one.pid}/fdinfo/${fd}`))?.[1] ?? "";
      expect(Number.parseInt(flags, 8) & O_ACCMODE).toBe(0);
    }
  });

  test("has no descriptor of anything else of the daemon's", () => {
    const targets = readdirSync(`/proc/${one.pid}/fd`).map((fd) => readlinkSync(`/proc/${one.pid}/fd/${fd}`));
    const files = targets.filter((target) => target.startsWith("/") && !target.startsWith("/dev/"));
    expect(files.filter((path) => path !== memoryPath() && !path.startsWith(join(vms.runDir, "q")))).toEqual([]);
  });

  test("cannot write its template, nor read what is not its own", async () => {
    expect(await runAs(one, `head -c 4096 ${memoryPath()} >/dev/null`)).toBe(0);
    expect(await runAs(one, `: >> ${memoryPath()}`)).not.toBe(0);
    expect(await runAs(one, `rm -f ${memoryPath()} && [ ! -e ${memoryPath()} ]`)).not.toBe(0);
    expect(await runAs(one, `touch ${join(vms.stateDir, "templates", "new")}`)).not.toBe(0);
    expect(await runAs(one, `cat ${join(vms.stateDir, "mayfly.db")}`)).not.toBe(0);
    expect(await runAs(one, `ls ${join(vms.stateDir, "vms")}`)).not.toBe(0);
    expect(await runAs(one, `cat /proc/${other.pid}/mem`)).not.toBe(0);
    expect(await runAs(one, `kill -0 ${other.pid}`)).not.toBe(0);
    expect(await runAs(one, `kill -0 ${process.pid}`)).not.toBe(0);
  });

  test("cannot connect to another one's sockets", () => {
    for (const slot of readdirSync(join(vms.runDir, "q"))) {
      for (const name of ["qmp", "agent"]) {
        const { mode, uid } = statSync(join(vms.runDir, "q", slot, name));
        expect({ writable: mode & 0o022, uid }).toEqual({ writable: 0, uid: 0 });
      }
      expect(statSync(join(vms.runDir, "q", slot, "log")).mode & 0o077).toBe(0);
    }
  });
});
