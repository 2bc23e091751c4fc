/** Columns of `top` beside what ps prints. */
import { expect, test } from "bun:test";
import { sampleProcess } from "../../tests/support/samples.ts";
import type { VmProcess } from "../contract/api.ts";
import { processColumns } from "./process-columns.ts";

const nowMs = new Date(2026, 0, 2, 12, 0, 0).getTime();
const context = { nowMs, memoryBytes: 128 << 20 };
const headings = (...options: string[]) => processColumns(options).map(({ heading }) => heading);
const row = (given: Partial<VmProcess>, ...options: string[]) =>
  processColumns(options).map(({ text }) => text({ ...sampleProcess, ...given }, context));

test("the full format is docker's, with or without -ef", () => {
  const full = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
  for (const options of [[], ["-ef"], ["-e", "-f"], ["-Af"], ["ax"]]) expect(headings(...options)).toEqual(full);
  const startedAt = new Date(2026, 0, 2, 9, 5).toISOString();
  expect(row({ startedAt, user: "www", tty: "pts/1" })).toEqual([
    "www",
    "71",
    "1",
    "2",
    "09:05",
    "pts/1",
    "00:00:01",
    "sleep 1",
  ]);
  expect(row({ startedAt: new Date(2025, 10, 3).toISOString() })[4]).toBe("Nov03");
  expect(row({ startedAt: new Date(2024, 1, 3).toISOString() })[4]).toBe("2024");
});

test("aux is BSD's format", () => {
  const bsd = ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"];
  for (const options of [["aux"], ["-aux"], ["u"], ["-ef", "aux"]]) expect(headings(...options)).toEqual(bsd);
  const startedAt = new Date(nowMs).toISOString();
  const cells = row({ startedAt, nice: -1, threads: 4, cpuMs: 90_061_000, elapsedMs: 0, command: [] }, "aux");
  expect(cells).toEqual(["root", "71", "0.0", "0.8", "4096", "1024", "?", "S<sl", "12:00", "1-01:01:01", "[sleep]"]);
});

test("columns are named, by any of ps' names", () => {
  expect(headings("-o", "pid,comm")).toEqual(["PID", "COMMAND"]);
  expect(headings("-eo", "pid,%cpu", "-o", "args")).toEqual(["PID", "%CPU", "COMMAND"]);
  expect(headings("-opid")).toEqual(["PID"]);
  expect(headings("--format=euser,UID etime")).toEqual(["USER", "UID", "ELAPSED"]);
  expect(row({ uid: 7, user: "lp", elapsedMs: 65_000 }, "-o", "uid,user,etime,ni,nlwp")).toEqual([
    "7",
    "lp",
    "01:05",
    "0",
    "1",
  ]);
});

test("what it does not know is refused with what is near", () => {
  expect(() => processColumns(["-o", "pidd"])).toThrow("did you mean pid?");
  expect(() => processColumns(["-o", "__proto__"])).toThrow("no column");
  for (const option of ["--forest", "-C", "-u", "--sort=pid", "-"])
    expect(() => processColumns([option])).toThrow("none of the options");
});
