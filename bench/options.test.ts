import { expect, test } from "bun:test";
import { benchOptions } from "./options.ts";

test("without options: 50 rounds, 500 requests, all peers", () => {
  expect(benchOptions([], false)).toEqual({
    runs: 50,
    concurrency: 100,
    peers: ["runc", "crun", "podman", "boot"],
    pool: true,
    requests: 500,
    rate: undefined,
    qemu: undefined,
    kernel: undefined,
    samplesPath: undefined,
    enforce: false,
    json: false,
  });
});

test("options are read", () => {
  const words =
    "--runs 5 --concurrency=7 --peers runc,boot --no-pool --rate 2.5 --qemu lean --kernel minimal --samples f --enforce --json";
  expect(benchOptions(words.split(" "), false)).toMatchObject({
    ...{ runs: 5, concurrency: 7, peers: ["runc", "boot"], pool: false, requests: 50, rate: 2.5 },
    ...{ qemu: "lean", kernel: "minimal", samplesPath: "f", enforce: true, json: true },
  });
  expect(benchOptions(["--peers", ""], true)).toMatchObject({ peers: [], json: true });
  expect(benchOptions(["--help"], false)).toBeUndefined();
});

test.each([
  [["--runs", "0"], "no number above 0"],
  [["--runs", "1.5"], "no whole number"],
  [["--peers", "lxc"], "--peers names lxc"],
  [["--rate", "fast"], "no number above 0"],
  [["more"], 'unexpected argument "more"'],
  [["--run", "5"], "did you mean --runs"],
])("%p is refused", (words, message) => {
  expect(() => benchOptions(words, false)).toThrow(message);
});
