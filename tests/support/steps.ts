/** For tests: the steps of taking, keeping and bringing back states, told just before they begin and when they have ended. */
import { AgentClient } from "../../src/agent/client.ts";
import { QemuProcess } from "../../src/engine/qemu-process.ts";
import { Records } from "../../src/engine/records.ts";
import { Templates } from "../../src/engine/templates.ts";
import { Vms } from "../../src/engine/vms.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { SnapshotStore } from "../../src/snapshot/store.ts";
import { BinaryFile } from "../../src/sys/binary-file.ts";
import { ParentProcess } from "../../src/sys/parent-process.ts";
import { MemoryCapture } from "../../src/sys/process-memory.ts";
import { TemplateStore } from "../../src/template/store.ts";

/** Where a step is: the method, and the word by which tests know it. */
interface Step {
  of: object;
  method: string;
  /** Undefined: this call is none. */
  name: (...args: unknown[]) => string | undefined;
}

const QMP_STEPS = new Map<unknown, string>([
  ["stop", "the stop of the CPUs"],
  ["xen-save-devices-state", "saving devices"],
  ["cont", "letting the CPUs go on"],
]);

const STEPS: readonly Step[] = [
  { of: AgentClient.prototype, method: "freeze", name: () => "freezing" },
  { of: QmpClient.prototype, method: "execute", name: (command) => QMP_STEPS.get(command) },
  { of: MemoryCapture.prototype, method: "take", name: () => "copying pages" },
  { of: ParentProcess.prototype, method: "take", name: () => "copying the process" },
  { of: ParentProcess.prototype, method: "copy", name: () => "copying the copy" },
  { of: ParentProcess.prototype, method: "writeImage", name: () => "writing the process image" },
  { of: AgentClient.prototype, method: "goOn", name: () => "letting it go on" },
  { of: SnapshotStore.prototype, method: "publish", name: () => "publishing" },
  { of: SnapshotStore.prototype, method: "publishCopy", name: () => "publishing what came" },
  { of: TemplateStore.prototype, method: "publish", name: () => "publishing a template" },
  { of: TemplateStore.prototype, method: "adopt", name: () => "adopting a template" },
  { of: Templates.prototype, method: "take", name: () => "taking in a template" },
  { of: BinaryFile.prototype, method: "write", name: () => "writing" },
  { of: BinaryFile.prototype, method: "sync", name: () => "syncing" },
  { of: Records.prototype, method: "putSnapshot", name: () => "recording the snapshot" },
  { of: Records.prototype, method: "removeSnapshot", name: () => "forgetting the snapshot" },
  { of: SnapshotStore.prototype, method: "remove", name: () => "removing the snapshot" },
  { of: Records.prototype, method: "putVm", name: () => "recording a VM" },
  { of: Vms.prototype, method: "park", name: () => "suspending" },
  { of: QemuProcess.prototype, method: "loadState", name: () => "loading devices" },
  { of: QemuProcess.prototype, method: "run", name: () => "letting it run" },
  { of: AgentClient.prototype, method: "identity", name: () => "the identity" },
  { of: AgentClient.prototype, method: "thaw", name: () => "thawing" },
];

/**
 * Calls back at every step from now on, in this process, until the result is disposed.
 * @param listener is given e.g. `before syncing`, `after syncing`. It may throw.
 */
export function tellSteps(listener: (moment: string) => void): Disposable {
  const undo = STEPS.map(({ of, method, name }) => {
    const original: unknown = Reflect.get(of, method);
    if (typeof original !== "function") throw new Error(`there is no ${method} that could be told of`);
    Reflect.set(of, method, function (this: unknown, ...args: unknown[]): unknown {
      const step = name(...args);
      if (step === undefined) return Reflect.apply(original, this, args);
      listener(`before ${step}`);
      const result: unknown = Reflect.apply(original, this, args);
      if (!(result instanceof Promise)) {
        listener(`after ${step}`);
        return result;
      }
      return result.then((value: unknown) => {
        listener(`after ${step}`);
        return value;
      });
    });
    return () => Reflect.set(of, method, original);
  });
  return {
    [Symbol.dispose]: () => {
      for (const each of undo) each();
    },
  };
}

/** Moments at which something is to strike: before each step, and after the last. */
export function momentsToStrike(told: readonly string[]): string[] {
  const distinct = [...new Set(told)];
  return distinct.filter((moment, index) => moment.startsWith("before") || index === distinct.length - 1);
}
