
import { test } from "bun:test";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
describeVms("zz", () => {
  test("fork times", async () => {
    const vms = await TestEngine.open({ pool: { blocked: 0, warm: 0 } });
    const parent = await vms.start({ name: "p" });
    await vms.shell("p", "echo hi");
    const all: any[] = [];
    for (const count of [1, 10]) for (let i = 0; i < 25; i++) {
      const t0 = performance.now();
      const r = await vms.engine.snapshots.fork("p", { count }, soon());
      const t = performance.now() - t0;
      const stages = r.vmIds.map((id) => vms.engine.getVm(id).clone.stages);
      const s = stages.at(-1) as any;
      const t1 = performance.now();
      await vms.shell(r.vmIds[0]!, "echo hi");
      all.push({ count, t, stopped: r.times.stoppedMs, vcpu: r.times.vcpuStoppedMs, ...s, echo: performance.now() - t1 });
      for (const id of r.vmIds) await vms.remove(id);
    }
    for (const count of [1, 10]) {
      const some = all.filter((x) => x.count === count);
      for (const k of Object.keys(some[0])) {
        const v = some.map((x) => x[k]).sort((a, b) => a - b);
        console.log(count, k, v[v.length >> 1]?.toFixed(2), "p95", v[Math.floor(v.length * 0.95)]?.toFixed(2));
      }
    }
    await vms[Symbol.asyncDispose]();
  }, 120000);
});
