/** `mayfly volume` as a process, over a daemon whose engine is in memory. */
import { afterAll, expect, test } from "bun:test";
import { FakeInstallation } from "../../tests/support/mayfly-process.ts";

const fake = new FakeInstallation();
afterAll(() => fake[Symbol.asyncDispose]());

const volume = async (...args: string[]) => {
  const { stdout, stderr, exitCode } = await fake.run(["volume", ...args]);
  return exitCode === 0 ? stdout : `${exitCode}: ${stderr}`;
};

test("volumes are made, listed, inspected, resized, removed and pruned", async () => {
  expect(await volume("create", "data", "--size", "500m", "-l", "a=b", "-l", "c")).toBe("data\n");
  expect(await volume("create", "data")).toMatch(/^125: mayfly: .*data/);
  expect(await volume("create", "other")).toBe("other\n");
  expect(await volume("ls", "-q")).toBe("data\nother\n");
  expect(await volume("ls")).toMatch(
    /^NAME +VM +CREATED +SIZE +USED\ndata .* ago +500MiB +4MiB\nother .* 10GiB +4MiB\n$/,
  );
  expect(JSON.parse(await volume("inspect", "data"))).toMatchObject([{ name: "data", labels: { a: "b", c: "" } }]);
  expect(await volume("resize", "data", "1g")).toBe("data\n");
  expect(JSON.parse(await volume("inspect", "data"))).toMatchObject([{ sizeBytes: 2 ** 30 }]);
  expect(await volume("rm", "data", "none")).toMatch(/^125: mayfly: There is no volume none/);
  expect(await volume("ls", "-q")).toBe("other\n");
  expect(await volume("prune")).toMatch(/^125: .*standard input is no terminal\n +hint: mayfly volume prune --force/);
  expect(await volume("prune", "--force")).toBe("Freed: 0B\n");
  expect(await volume("prune", "--force", "--all")).toBe("other\nFreed: 0B\n");
});

test("sizes that cannot be are refused before anything is asked for", async () => {
  expect(await volume("create", "x", "--size", "big")).toMatch(/^125: mayfly: --size is "big", which is not a size/);
  expect(await volume("create", "x", "--size", "1m")).toMatch(/^125: .*sizeBytes/);
  expect(await volume("resize", "x", "1e3g")).toMatch(/^125: mayfly: SIZE is "1e3g"/);
  expect(await volume("ls", "-q")).toBe("");
});
