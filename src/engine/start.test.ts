import { expect, test } from "bun:test";
import { baseSpec } from "./exec-spec.ts";
import { sizesOf } from "./start.ts";

const MIB = 2 ** 20;

test("a VM that asks for nothing has the default size, and is not limited below its shape", () => {
  expect(sizesOf({})).toEqual({ shape: { memoryMiB: 128, vcpus: 1 }, memoryBytes: 128 * MIB, cpus: 1, limited: false });
});

test("a size between two shapes is the larger one, limited", () => {
  expect(sizesOf({ memoryBytes: 200 * MIB })).toMatchObject({ shape: { memoryMiB: 256, vcpus: 1 }, limited: true });
  expect(sizesOf({ cpus: 0.5 })).toMatchObject({ shape: { memoryMiB: 128, vcpus: 1 }, cpus: 0.5, limited: true });
  expect(sizesOf({ memoryBytes: 256 * MIB, cpus: 2 })).toMatchObject({ limited: false });
});

test("sizes that cannot be are refused", () => {
  expect(() => sizesOf({ memoryBytes: 1 })).toThrow("1 MiB");
  expect(() => sizesOf({ memoryBytes: 2 ** 50 })).toThrow("MiB");
  expect(() => sizesOf({ cpus: 100 })).toThrow("100 CPUs");
});

test("a process has docker's defaults unless it is told otherwise", () => {
  expect(baseSpec({}, ["true"], true)).toEqual({
    argv: ["true"],
    env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
    cwd: "/",
    uid: 0,
    gid: 0,
    stdin: false,
    killTree: true,
  });
  const terminal = { rows: 2, columns: 3 };
  const request = { user: "5", env: { PATH: "/p", X: "a=b" }, workdir: "/w", stdin: true, terminal };
  expect(baseSpec(request, ["x", "y"], false)).toEqual({
    argv: ["x", "y"],
    env: ["PATH=/p", "HOME=/", "TERM=xterm", "X=a=b"],
    cwd: "/w",
    uid: 5,
    gid: 5,
    stdin: true,
    killTree: false,
    terminal,
  });
  expect(baseSpec({ user: "5:7" }, ["x"], false)).toMatchObject({ uid: 5, gid: 7 });
});
