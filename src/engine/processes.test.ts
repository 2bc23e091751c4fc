/** Processes of a VM as documents. */
import { expect, test } from "bun:test";
import type { SurveyedProcess } from "../agent/survey.ts";
import { describeProcesses, userNames } from "./processes.ts";

const process: SurveyedProcess = {
  ...{ pid: 9, ppid: 1, pgid: 9, sid: 9, terminal: 0, uid: 0, nice: 0, threads: 1, cpuMs: 20, startedMs: 1000 },
  ...{ virtualBytes: 8192, residentBytes: 4096, state: "S", name: "sh", commandLine: "sh\0-c\0a\nb" },
};
const describe = (given: Partial<SurveyedProcess>) =>
  describeProcesses(
    { realtimeMs: 100_000, uptimeMs: 5000, processes: [{ ...process, ...given }] },
    new Map([[7, "lp"]]),
  )[0];

test("a process has its start by the clock, its arguments apart, and its user's name", () => {
  expect(describe({})).toMatchObject({
    ...{ user: "0", tty: null, elapsedMs: 4000, startedAt: "1970-01-01T00:01:36.000Z", command: ["sh", "-c", "a\nb"] },
  });
  expect(describe({ uid: 7, commandLine: "" })).toMatchObject({ user: "lp", command: [] });
  expect(describe({ startedMs: 2 ** 52 })?.elapsedMs).toBe(0);
});

test("terminals have the names of their devices", () => {
  const terminals: [number, string][] = [
    [0x8800, "pts/0"],
    [0x8803, "pts/3"],
    [0x88_ff + (1 << 20), "pts/511"],
    [0x401, "tty1"],
    [0x440, "ttyS0"],
    [0x501, "console"],
    [0xe500, "229:0"],
  ];
  for (const [terminal, name] of terminals) expect(describe({ terminal })?.tty).toBe(name);
});

test("they come in the order of their pids", () => {
  const processes = [5, 3, 40].map((pid) => ({ ...process, pid }));
  const described = describeProcesses({ realtimeMs: 0, uptimeMs: 0, processes }, new Map());
  expect(described.map(({ pid }) => pid)).toEqual([3, 5, 40]);
});

test("user names are those of the first entry of a number; what is no entry is none", () => {
  const names = userNames("root:x:0:0::/:/bin/sh\nother:x:0:0\n:x:3:3\nbad:x:-1:\n#x\n\nalice:x:1000:1000");
  expect([...names]).toEqual([
    [0, "root"],
    [1000, "alice"],
  ]);
});
