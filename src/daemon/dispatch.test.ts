import { expect, test } from "bun:test";
import { connect } from "node:net";
import { servedDaemon } from "../../tests/support/served-daemon.ts";
import { Problem } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { JSON_LIMIT_BYTES } from "./body.ts";

async function problem(response: Response) {
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const document = Problem.parse(await response.json());
  expect(document.status).toBe(response.status);
  return document;
}

test("unknown paths and wrong methods", async () => {
  await using daemon = await servedDaemon();
  for (const path of ["/", "/v1", "/v1/", "/v2/vms", "/v1/vms/", "/v1/vms/a/b/c", "/v1/nothing"]) {
    const nothing = await problem(await daemon.call("GET", path));
    expect([path, nothing.status, nothing.code]).toEqual([path, 404, "route_not_found"]);
    expect(nothing.detail).toBe(`There is nothing at ${path}`);
  }
  const wrong = await daemon.call("PATCH", "/v1/vms");
  expect(wrong.headers.get("allow")).toBe("POST, GET");
  expect(await problem(wrong)).toMatchObject({ status: 405, code: "route_not_found" });
});

test("a fixed part of a path hides only what it leads to: a VM may be named run", async () => {
  await using daemon = await servedDaemon();
  await daemon.call("POST", "/v1/vms", { name: "run" });
  expect((await daemon.call("GET", "/v1/vms/run/stats")).status).toBe(200);
});

test("names in paths are decoded, bad encodings are refused", async () => {
  await using daemon = await servedDaemon();
  expect((await problem(await daemon.call("GET", "/v1/vms/a%20b"))).detail).toContain("a b");
  expect(await problem(await daemon.call("GET", "/v1/vms/a%zz"))).toMatchObject({ status: 400 });
});

test("the engine's errors become problems with their status, stage and details", async () => {
  await using daemon = await servedDaemon();
  daemon.engine.getVm = () => {
    throw new MayflyError("qemu_exited", "QEMU ended", { stage: "spawn", vmId: "vm_x", details: { exitCode: 1 } });
  };
  expect(await problem(await daemon.call("GET", "/v1/vms/x"))).toEqual({
    type: "urn:mayfly:problem:qemu_exited",
    title: "Qemu exited",
    status: 503,
    detail: "QEMU ended",
    code: "qemu_exited",
    kind: "unavailable",
    stage: "spawn",
    vmId: "vm_x",
    details: { exitCode: 1 },
  });
});

test("an error that nobody foresaw is internal", async () => {
  await using daemon = await servedDaemon();
  daemon.engine.getVm = () => {
    throw new TypeError("x is undefined");
  };
  expect(await problem(await daemon.call("GET", "/v1/vms/x"))).toMatchObject({ status: 500, code: "internal" });
});

test("every problem of a request is named with its path", async () => {
  await using daemon = await servedDaemon();
  const request = { command: [], cpus: -1, env: { "A=B": "x" }, hostname: "-", colour: 1, terminal: { rows: 70_000 } };
  const { details, code, detail } = await problem(await daemon.call("POST", "/v1/vms", request));
  expect(code).toBe("invalid_argument");
  const problems = details?.["problems"] as string[];
  for (const path of ["command", "cpus", "env.A=B", "hostname", "terminal.rows", "terminal.columns"]) {
    expect(problems.some((text) => text.startsWith(`${path}: `))).toBe(true);
  }
  expect(problems.some((text) => text.includes('"colour"'))).toBe(true);
  for (const text of problems) expect(detail).toContain(text);
});

test("query parameters are checked", async () => {
  await using daemon = await servedDaemon();
  const cases = {
    "/v1/vms/x/logs?tail=-1": "tail: must be a whole number",
    "/v1/vms/x/logs?follow=maybe": "follow: ",
    "/v1/vms/x/logs?colour": '"colour"',
    "/v1/vms/x/files": "path: ",
    "/v1/vms/x/files?path=relative": "path: must be an absolute path without NUL",
    "/v1/vms/x/files?path=%2Fa%00": "path: must be an absolute path without NUL",
  };
  for (const [path, expected] of Object.entries(cases)) {
    const { status, detail } = await problem(await daemon.call("GET", path));
    expect([path, status]).toEqual([path, 400]);
    expect(detail).toContain(expected);
  }
  const mode = await problem(
    await daemon.call("PUT", "/v1/vms/x/files?path=/a&mode=888&uid=4294967295", undefined, { body: "" }),
  );
  expect(mode.details?.["problems"]).toEqual([
    "mode: must be octal, such as 0644",
    "uid: must be from 0 to 4294967294",
  ]);
});

test("bodies: no JSON, empty, bad UTF-8, too large", async () => {
  await using daemon = await servedDaemon();
  const send = async (body: string | Uint8Array<ArrayBuffer>) =>
    problem(await daemon.call("POST", "/v1/vms", undefined, { body }));
  expect((await send("{")).detail).toStartWith("Cannot read the request as JSON: ");
  expect((await send("")).detail).toBe("Cannot read the request as JSON: the body is empty");
  expect((await send(Uint8Array.of(0x22, 0xff, 0x22))).status).toBe(400);
  expect((await send("null")).detail).toContain("expected object");
  expect(await send(" ".repeat(JSON_LIMIT_BYTES + 1))).toMatchObject({ status: 413, code: "invalid_argument" });
});

test("a body of unknown length is cut off at the limit", async () => {
  await using daemon = await servedDaemon();
  const piece = `10000\r\n${" ".repeat(65_536)}\r\n`;
  const answer = await new Promise<string>((resolve) => {
    const socket = connect(daemon.socketPath, () => {
      socket.write("POST /v1/vms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
      for (let sent = 0; sent <= JSON_LIMIT_BYTES; sent += 65_536) socket.write(piece);
    });
    socket.once("data", (data) => {
      socket.destroy();
      resolve(String(data));
    });
  });
  expect(answer).toStartWith("HTTP/1.1 413 ");
});

test("a WebSocket's path without an upgrade says what it is", async () => {
  await using daemon = await servedDaemon();
  expect((await problem(await daemon.call("GET", "/v1/vms/run"))).detail).toContain("is a WebSocket");
});
