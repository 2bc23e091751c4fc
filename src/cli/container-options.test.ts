import { describe, expect, test } from "bun:test";
import { parseArguments } from "./arguments.ts";
import { command as run } from "./commands/run.ts";
import { type CONTAINER_OPTIONS, containerRequest, parseRestart, parseTmpfs } from "./container-options.ts";
import { typedOptions, UNIVERSAL_OPTIONS } from "./specification.ts";

const requestOf = (...argv: string[]) => {
  const { options } = parseArguments(run.spec, UNIVERSAL_OPTIONS, [...argv, "image"], "mayfly run");
  return containerRequest(typedOptions<typeof CONTAINER_OPTIONS>(options));
};

test("nothing asked for is nothing requested", async () => {
  expect(await requestOf()).toEqual({});
});

test.each([
  [["--read-only", "--init", "--publish-all"], { readOnly: true, init: true, publishAll: true }],
  [["--entrypoint", "/bin/sh"], { entrypoint: ["/bin/sh"] }],
  [["--entrypoint="], { entrypoint: [] }],
  [
    ["-p", "1:2", "-p", "3:4"],
    {
      ports: [
        { hostPort: 1, guestPort: 2 },
        { hostPort: 3, guestPort: 4 },
      ],
    },
  ],
  [["--disk", "1g", "--pids-limit", "20"], { diskBytes: 2 ** 30, pidsLimit: 20 }],
  [["--stop-signal", "SIGQUIT", "--stop-timeout", "3s"], { stopSignal: 3, stopGraceMs: 3000 }],
  [["--cap-add", "NET_ADMIN", "--cap-drop", "ALL"], { capAdd: ["NET_ADMIN"], capDrop: ["ALL"] }],
  [
    ["--health-cmd", "true", "--health-interval", "2s", "--health-retries", "5"],
    { health: { test: ["CMD-SHELL", "true"], intervalMs: 2000, retries: 5 } },
  ],
  [
    ["--health-start-period", "1m", "--health-start-interval", "500ms", "--health-timeout", "3s"],
    { health: { startPeriodMs: 60_000, startIntervalMs: 500, timeoutMs: 3000 } },
  ],
  [["--no-healthcheck", "--health-cmd", "true"], { health: { test: ["NONE"] } }],
] as const)("%j", async (argv, request) => {
  expect(await requestOf(...argv)).toEqual(request as object);
});

describe("restart policies", () => {
  test.each([
    ["no", { name: "no" }],
    ["always", { name: "always" }],
    ["on-failure", { name: "on-failure" }],
    ["on-failure:3", { name: "on-failure", maximumRetries: 3 }],
  ] as const)("%s", (text, policy) => expect(parseRestart(text)).toEqual(policy));
  test.each(["", "never", "always:2", "on-failure:x", "on-failure:1:2"])("%j is refused", (text) => {
    expect(() => parseRestart(text)).toThrow("unless-stopped");
  });
});

describe("tmpfs", () => {
  test.each([
    ["/tmp", { target: "/tmp" }],
    ["/x:size=64m,mode=0755,ro", { target: "/x", sizeBytes: 64 * 2 ** 20, mode: 0o755, readOnly: true }],
    ["/x:exec,nosuid", { target: "/x", exec: true }],
  ] as const)("%s", (text, mount) => expect(parseTmpfs(text)).toEqual(mount));
  test.each(["/x:size=big", "/x:mode=99", "/x:uid=3"])("%j is refused", (text) => {
    expect(() => parseTmpfs(text)).toThrow("tmpfs");
  });
});

test.each([
  [["--secret", "name"], "NAME=FILE"],
  [["--secret", "a=/nonexistent"], "/nonexistent"],
  [["--pids-limit", "0"], "--pids-limit is 0"],
])("%j is refused", async (argv, why) => {
  expect(requestOf(...argv)).rejects.toThrow(why);
});
