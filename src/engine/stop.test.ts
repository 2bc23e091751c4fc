import { expect, test } from "bun:test";
import { Deadline } from "../sys/deadline.ts";
import { stopInKernel } from "./stop.ts";

/** Where a guest is stopped: its privilege level, and whether it takes interrupts. */
type Place = readonly [level: number, interrupts?: "off"];

/** A QEMU whose guest is at these places when it is stopped, one after another. @returns what it was told. */
async function stopAt(places: readonly Place[]): Promise<string[]> {
  const told: string[] = [];
  let stops = 0;
  const execute = async (command: string) => {
    told.push(command);
    if (command === "stop") stops += 1;
    const [level, interrupts] = places[stops - 1] ?? [];
    // As QEMU prints them.
    const flags = `RIP=0000000000401407 RFL=00000${interrupts === "off" ? 0 : 2}46 [---Z-P-] CPL=${level} II=0 A20=1 SMM=0 HLT=0`;
    return command === "human-monitor-command" ? `\r\nCPU#0\r\nRAX=fffffffffffffff5 RBX=0\r\n${flags}\r\n` : {};
  };
  await stopInKernel({ execute }, Deadline.after(10_000));
  return told.filter((command) => command !== "human-monitor-command");
}

test("a guest that is stopped in its kernel stays there", async () => {
  expect(await stopAt([[0]])).toEqual(["stop"]);
});

test("a guest that is stopped in user space goes on, and is stopped again", async () => {
  expect(await stopAt([[3], [3], [0]])).toEqual(["stop", "cont", "stop", "cont", "stop"]);
});

test("a guest that takes no interrupts goes on, and is stopped again", async () => {
  expect(await stopAt([[0, "off"], [0]])).toEqual(["stop", "cont", "stop"]);
});

test("a guest that is never found in its kernel is stopped in the end", async () => {
  const told = await stopAt(Array.from({ length: 10 }, () => [3] as const));
  expect(told.at(-1)).toBe("stop");
  expect(told.filter((command) => command === "stop").length).toBe(8);
});
