import { expect, test } from "bun:test";
import { daemonOptions } from "./config.ts";

test("defaults", () => {
  expect(daemonOptions([], {})).toMatchObject({ logLevel: "info", tcp: undefined, readyFd: undefined });
});

test("flags win over the environment, in both forms", () => {
  const options = daemonOptions(
    ["--run-dir", "/run/b/", "--state-dir=/var/b", "--ready-fd", "3", "--log-level=debug"],
    {
      MAYFLY_RUN_DIR: "/run/a",
      MAYFLY_STATE_DIR: "/var/a",
      MAYFLY_LOG_LEVEL: "error",
    },
  );
  expect(options).toEqual({
    stateDir: "/var/b",
    runDir: "/run/b",
    socketPath: "/run/b/mayfly.sock",
    tcp: undefined,
    pool: undefined,
    accelerator: undefined,
    overcommit: undefined,
    profiles: undefined,
    logLevel: "debug",
    readyFd: 3,
    closeLimitMs: 10_000,
  });
});

test("TCP addresses", () => {
  const tcp = (listen: string) => daemonOptions([], { MAYFLY_LISTEN: listen, MAYFLY_TOKEN: "t" }).tcp;
  expect(tcp("7420")).toEqual({ host: "127.0.0.1", port: 7420, token: "t", tokenFile: undefined });
  expect(tcp("0.0.0.0:1")).toMatchObject({ host: "0.0.0.0", port: 1 });
  expect(tcp("[::1]:1")).toMatchObject({ host: "::1", port: 1 });
  for (const wrong of ["::1:1", "host:", "host:99999", "a b:1", "x"]) expect(() => tcp(wrong)).toThrow("MAYFLY_LISTEN");
});

test("pool and accelerator", () => {
  expect(daemonOptions(["--pool", "0:8"], { MAYFLY_ACCELERATOR: "tcg" })).toMatchObject({
    pool: { blocked: 0, warm: 8 },
    accelerator: "tcg",
  });
  const poolOf = (pool: string) => daemonOptions([], { MAYFLY_POOL: pool }).pool;
  expect(poolOf("0:0:1")).toEqual({ blocked: 0, warm: 0, parent: true });
  expect(poolOf("2:4:0")).toEqual({ blocked: 2, warm: 4, parent: false });
  for (const pool of ["8", "a:b", "1:1001", "-1:2", "1:1:2", "1:1:"])
    expect(() => daemonOptions([], { MAYFLY_POOL: pool })).toThrow("BLOCKED:WARM");
  expect(() => daemonOptions(["--accelerator=xen"], {})).toThrow("kvm, tcg");
});

test("overcommit", () => {
  const overcommit = (ratio: string) => daemonOptions([`--overcommit=${ratio}`], { MAYFLY_OVERCOMMIT: "7" }).overcommit;
  expect([overcommit("10"), overcommit("0.8"), overcommit("1000")]).toEqual([10, 0.8, 1000]);
  expect(daemonOptions([], { MAYFLY_OVERCOMMIT: "7" }).overcommit).toBe(7);
  for (const wrong of ["0", "-1", "1001", "1e2", "ten", "Infinity", "1."])
    expect(() => overcommit(wrong)).toThrow(`MAYFLY_OVERCOMMIT="${wrong}": it takes a number above 0, at most 1000`);
});

test("device profiles", () => {
  const profiles = (list: string) => daemonOptions([`--profiles=${list}`], {}).profiles;
  expect([profiles("none"), profiles("disk,exec"), profiles("net")]).toEqual([[], ["exec", "disk"], ["net"]]);
  for (const wrong of ["all", "exec,,disk", "exec,exec", "disk, exec"])
    expect(() => profiles(wrong)).toThrow(`MAYFLY_PROFILES="${wrong}": it takes some of exec, disk, net, full`);
});

test("what is wrong is named", () => {
  expect(() => daemonOptions(["--colour"], {})).toThrow("does not know --colour");
  expect(() => daemonOptions(["--run-dir"], {})).toThrow("--run-dir needs a value");
  expect(() => daemonOptions(["--run-dir", "a"], {})).toThrow('MAYFLY_RUN_DIR="a"');
  expect(() => daemonOptions([], { MAYFLY_LOG_LEVEL: "loud" })).toThrow("error, warn, info, debug");
  expect(() => daemonOptions([], { MAYFLY_READY_FD: "1" })).toThrow("above 2");
});
