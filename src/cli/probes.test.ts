import { expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { BuildTemplateRequest, ReadyProbe, WarmUp } from "../contract/template.ts";
import { parsePool, parseReady, parseWarmUp } from "./probes.ts";

test("a way to be ready", () => {
  const probes = {
    "http://:8080/health?a=b%20c": { kind: "http", port: 8080, path: "/health?a=b%20c" },
    "http://:8080": { kind: "http", port: 8080, path: "/" },
    "HTTP://localhost/x": { kind: "http", port: 80, path: "/x" },
    "http://127.0.0.1:1/": { kind: "http", port: 1, path: "/" },
    "tcp://:5432": { kind: "tcp", port: 5432 },
    "exec:pg_isready -q": { kind: "exec", command: ["/bin/sh", "-c", "pg_isready -q"] },
    "log:^ready: .*": { kind: "log", pattern: "^ready: .*" },
    started: { kind: "started" },
  };
  for (const [text, probe] of Object.entries(probes)) {
    expect([text, parseReady(text) as unknown]).toEqual([text, probe]);
    expect(ReadyProbe.safeParse(parseReady(text)).success).toBe(true);
  }
});

test("no way to be ready", () => {
  for (const text of [
    "",
    "http",
    "https://:443/",
    "http://example.org:80/",
    "http://:0/",
    "http://:65536/",
    "http://:80/a b",
    "tcp://",
    "tcp://:80/x",
    "exec:",
    "log:",
  ])
    expect(() => parseReady(text)).toThrow(MayflyError);
});

test("a warm-up is a URL or a command", () => {
  expect(parseWarmUp("http://:80/x")).toEqual({ kind: "http", port: 80, path: "/x" });
  expect(parseWarmUp("ab -n 10 http://localhost/")).toEqual({
    kind: "exec",
    command: ["/bin/sh", "-c", "ab -n 10 http://localhost/"],
  });
  expect(WarmUp.safeParse(parseWarmUp("true")).success).toBe(true);
  for (const text of [" ", "https://:443/", "http://elsewhere:1/"])
    expect(() => parseWarmUp(text)).toThrow("--warm-up");
});

test("pool sizes", () => {
  expect(parsePool("--pool", "3")).toEqual({ warm: 3, blocked: 0 });
  expect(parsePool("--pool", "0:12")).toEqual({ warm: 0, blocked: 12 });
  expect(parsePool("--pool", "0:0:1")).toEqual({ warm: 0, blocked: 0, parent: true });
  expect(parsePool("--pool", "4:0:0")).toEqual({ warm: 4, blocked: 0, parent: false });
  for (const text of ["", "1:2:3", "1:2:1:0", "1:2:", "-1", "1:", "x", "1:x"])
    expect(() => parsePool("--pool", text)).toThrow("--pool");
});

test("a request says what is wrong with it", () => {
  const problems = (request: unknown) => BuildTemplateRequest.safeParse(request).success;
  expect(problems({ name: "web", image: "web:1", ready: { kind: "http", port: 80, path: "/" }, warmUpTimes: 3 })).toBe(
    true,
  );
  expect(problems({ name: "web", pool: { warm: 1, blocked: 0 } })).toBe(true);
  for (const bad of [
    { ready: { kind: "http", port: 80, path: "no slash" } },
    { ready: { kind: "http", port: 80, path: "/a\r\nHost: x" } },
    { ready: { kind: "tcp", port: 0 } },
    { warmUpTimes: 0 },
    { postClone: [] },
    { pool: { warm: 1 } },
    { volumes: [] },
    { secrets: {} },
  ])
    expect([bad, problems({ name: "web", image: "web:1", ...bad })]).toEqual([bad, false]);
});
