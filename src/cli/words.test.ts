import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { baseName, directoryTarget, fileTarget, meansContent, parseSide } from "./copy-paths.ts";
import { detachFilter, parseDetachKeys } from "./detach-keys.ts";
import { shortId } from "./ids.ts";
import { formatTable, oneLine } from "./output.ts";
import { describeError, exitCodeOf } from "./report.ts";
import { parseSignal, signalNumber } from "./signals.ts";
import { editDistance, nearest } from "./suggest.ts";

describe("suggestions", () => {
  const known = ["run", "exec", "ps", "logs", "template", "image", "inspect"];
  test.each([
    ["rnu", "run"],
    ["tempalte", "template"],
    ["log", "logs"],
    ["exce", "exec"],
    ["xyz", undefined],
    ["", undefined],
    ["q", undefined],
  ])("%j -> %p", (typed, expected) => {
    expect(nearest(typed, known)).toBe(expected);
  });

  test("the distance is symmetric, and zero only between equals", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        expect(editDistance(a, b)).toBe(editDistance(b, a));
        expect(editDistance(a, b) === 0).toBe(a === b);
        expect(editDistance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
      }),
    );
  });
});

describe("detach keys", () => {
  test("are read", () => {
    expect(parseDetachKeys("ctrl-p,ctrl-q")).toEqual([16, 17]);
    expect(parseDetachKeys("a,ctrl-[,ctrl-@")).toEqual([97, 27, 0]);
    for (const text of ["", "ctrl-", "ctrl-1", "ab", "a,,b", "é"])
      expect(() => parseDetachKeys(text)).toThrow("--detach-keys");
  });

  test("are found wherever the chunks are split, and everything before them passes", () => {
    const keys = [16, 17];
    const typed = fc
      .uint8Array({ maxLength: 40 })
      .filter((bytes) => !bytes.some((byte, i) => byte === 16 && bytes[i + 1] === 17));
    fc.assert(
      fc.property(typed, fc.array(fc.nat(50)), (bytes, cuts) => {
        const before = bytes.at(-1) === 16 ? bytes.slice(0, -1) : bytes;
        const input = [...before, 16, 17, 99];
        const filter = detachFilter(keys);
        const passed: number[] = [];
        let detached = false;
        const points = [...new Set([0, ...cuts.filter((cut) => cut < input.length), input.length])].sort(
          (a, b) => a - b,
        );
        for (let i = 0; i + 1 < points.length && !detached; i++) {
          const result = filter(Uint8Array.from(input.slice(points[i], points[i + 1])));
          passed.push(...result.bytes);
          detached = result.detach;
        }
        expect(detached).toBe(true);
        expect(passed).toEqual([...before]);
      }),
    );
  });

  test("a begun sequence that goes on differently passes", () => {
    const filter = detachFilter([16, 17]);
    expect(filter(Uint8Array.of(16))).toEqual({ bytes: new Uint8Array(), detach: false });
    expect(filter(Uint8Array.of(16, 65))).toEqual({ bytes: Uint8Array.of(16, 16, 65), detach: false });
  });
});

describe("signals", () => {
  test.each([
    ["TERM", 15],
    ["SIGTERM", 15],
    ["sigkill", 9],
    ["9", 9],
    ["64", 64],
  ])("%s is %d", (text, number) => {
    expect(parseSignal("--signal", text)).toBe(number);
  });

  test("others are refused", () => {
    for (const text of ["", "0", "65", "SIGNOPE", "-9", "1.5", "toString"]) {
      expect(() => parseSignal("--signal", text)).toThrow("which is no signal's name or number");
    }
    expect(signalNumber("SIGHUP")).toBe(1);
  });
});

describe("errors", () => {
  test.each([
    ["command_not_found", 127],
    ["command_not_executable", 126],
    ["deadline_exceeded", 124],
    ["vm_not_found", 125],
    ["cancelled", 130],
    ["internal", 125],
  ] as const)("%s ends with %d", (code, exitCode) => {
    expect(exitCodeOf(new MayflyError(code, "x"))).toBe(exitCode);
  });

  test("have their remedy, their problems and the end of what a process said", () => {
    const details = { problems: ["a: b", "c: d"], stderrTail: "one\ntwo\n", remedy: "mayfly setup" };
    expect(describeError(new MayflyError("setup_required", "Cannot start", { details }))).toBe(
      "mayfly: Cannot start\n  - a: b\n  - c: d\n  standard error, last lines:\n    one\n    two\n  hint: mayfly setup\n",
    );
    expect(exitCodeOf(new TypeError("x"))).toBe(125);
    expect(describeError(new TypeError("x"))).toContain("mayfly: unexpected error: TypeError: x");
  });
});

describe("tables", () => {
  test("have no borders and three blanks between columns", () => {
    expect(
      formatTable(
        ["VM ID", "NAME"],
        [
          ["abcdefgh", "web"],
          ["x", ""],
        ],
      ),
    ).toBe("VM ID      NAME\nabcdefgh   web\nx\n");
    expect(formatTable(["A", "B"], [])).toBe("A   B\n");
  });

  test("control characters of guests do not reach the terminal", () => {
    expect(oneLine("a\x1b[31mb\nc\x7f")).toBe("a\\u001b[31mb\\nc\\u007f");
    expect(formatTable(["A"], [["x\x1b]0;evil\x07"]])).toBe("A\nx\\u001b]0;evil\\u0007\n");
  });

  test("wide characters keep the columns", () => {
    expect(formatTable(["A", "B"], [["名前", "x"]])).toBe("A      B\n名前   x\n");
  });
});

test("short ids are the beginning of the random part", () => {
  expect(shortId("vm_agmx23456789012345678901ab")).toBe("agmx234567890123");
});

describe("cp", () => {
  test.each([
    ["web:/etc/hosts", { kind: "guest", vm: "web", path: "/etc/hosts" }],
    ["web:etc", { kind: "guest", vm: "web", path: "/etc" }],
    ["web:", { kind: "guest", vm: "web", path: "/" }],
    ["./a:b", { kind: "host", path: "./a:b" }],
    ["/a:b", { kind: "host", path: "/a:b" }],
    ["dir/a:b", { kind: "host", path: "dir/a:b" }],
    ["plain", { kind: "host", path: "plain" }],
    [":x", { kind: "host", path: ":x" }],
    ["-", { kind: "stream" }],
  ] as const)("%s", (text, side) => {
    expect(parseSide(text)).toEqual(side);
  });

  test("a file goes to a name, or into a directory that is there", () => {
    expect(fileTarget("a/b.txt", "c", undefined)).toBe("c");
    expect(fileTarget("a/b.txt", "c", "file")).toBe("c");
    expect(fileTarget("a/b.txt", "c", "directory")).toBe("c/b.txt");
    expect(fileTarget("a/b.txt", "/", "directory")).toBe("/b.txt");
    expect(() => fileTarget("a/b.txt", "c/", undefined)).toThrow("there is no such directory");
    expect(() => fileTarget("a/b.txt", "c/", "file")).toThrow("it is no directory");
  });

  test("a directory becomes the target, goes into it, or is poured into it", () => {
    expect(directoryTarget("a/b", "c", undefined)).toBe("c");
    expect(directoryTarget("a/b/", "c", "directory")).toBe("c/b");
    expect(directoryTarget("a/b/.", "c", "directory")).toBe("c");
    expect(directoryTarget(".", "c", "directory")).toBe("c");
    expect(() => directoryTarget("a", "c", "file")).toThrow("it is a file");
    expect([baseName("/a/b/"), baseName("/"), baseName("a/.."), baseName("x")]).toEqual(["b", "", "", "x"]);
    expect([meansContent("a/."), meansContent("."), meansContent("a."), meansContent("a/")]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});
