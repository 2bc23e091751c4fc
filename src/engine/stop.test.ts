import { expect, test } from "bun:test";
import { Deadline } from "../sys/deadline.ts";
import { stopInKernel } from "./stop.ts";

/** Where a guest is stopped: its privilege level, whether it takes interrupts, and those that wait in its local APIC. */
interface Place {
  level?: number;
  interrupts?: "off";
  waiting?: readonly number[];
  idle?: boolean;
}

/** A QEMU whose guest is at these places when it is stopped, one after another. @returns what it was told, and what came of it. */
async function stopAt(places: readonly Place[]): Promise<{ told: string[]; isThere: boolean }> {
  const told: string[] = [];
  let stops = 0;
  const execute = async (command: string, argumentsOf?: Record<string, unknown>) => {
    told.push(command);
    if (command === "stop") stops += 1;
    if (command !== "human-monitor-command") return {};
    const { level = 0, interrupts, waiting = [], idle = false } = places[stops - 1] ?? {};
    // As QEMU prints them.
    if (argumentsOf?.["command-line"] === "info registers") {
      const flags = `RIP=0000000000401407 RFL=00000${interrupts === "off" ? 0 : 2}46 [---Z-P-] CPL=${level} II=0 A20=1 SMM=0 HLT=${Number(idle)}`;
      return `\r\nCPU#0\r\nRAX=fffffffffffffff5 RBX=0\r\n${flags}\r\n`;
    }
    const timer = "LVTT\t 0x000000ec active-hi edge                 one-shot     Fixed  (vec 236)";
    const vectors = waiting.length === 0 ? "(none)" : `${waiting.join(" ")} `;
    return `dumping local APIC state for CPU 0\r\n\r\nLVTTHMR\t 0x00010000 (vec 0)\r\n${timer}\r\nISR\t (none)\r\nIRR\t ${vectors}\r\n\r\n`;
  };
  const isThere = await stopInKernel({ execute }, Deadline.after(10_000));
  return { told: told.filter((command) => command !== "human-monitor-command"), isThere };
}

test("a guest that is stopped in its kernel stays there", async () => {
  expect(await stopAt([{}])).toEqual({ told: ["stop"], isThere: true });
});

test("a guest that is stopped in user space goes on, and is stopped again", async () => {
  expect(await stopAt([{ level: 3 }, { level: 3 }, {}])).toEqual({
    told: ["stop", "cont", "stop", "cont", "stop"],
    isThere: true,
  });
});

test("a guest that takes no interrupts goes on, and is stopped again", async () => {
  expect(await stopAt([{ interrupts: "off" }, {}])).toEqual({ told: ["stop", "cont", "stop"], isThere: true });
});

test("a guest whose timer has fired goes on, and is stopped again; other interrupts may wait", async () => {
  expect(await stopAt([{ waiting: [236, 36] }, { waiting: [36] }])).toEqual({
    told: ["stop", "cont", "stop"],
    isThere: true,
  });
});

test("a guest that is never found in its kernel is stopped in the end", async () => {
  const { told, isThere } = await stopAt(Array.from({ length: 10 }, () => ({ level: 3 })));
  expect(isThere).toBe(false);
  expect(told.at(-1)).toBe("stop");
  expect(told.filter((command) => command === "stop").length).toBe(8);
});

test("a guest that is idle expects no stop any more: it is not tried again", async () => {
  expect(await stopAt([{ level: 3 }, { idle: true }])).toEqual({ told: ["stop", "cont", "stop"], isThere: false });
});
