import { expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { servedDaemon } from "../../tests/support/served-daemon.ts";
import { Problem } from "../contract/api.ts";
import { readToken } from "./token.ts";

const token = "0123456789abcdef";

test("TCP wants the token everywhere but for /healthz; the unix socket does not", async () => {
  await using daemon = await servedDaemon({ tcp: { host: "127.0.0.1", port: 0, token } });
  const base = `http://127.0.0.1:${daemon.serving.tcpPort}`;
  const ask = (path: string, authorization?: string) =>
    fetch(base + path, authorization === undefined ? {} : { headers: { authorization } });
  for (const path of ["/v1/vms", "/v1/version", "/metrics", "/v1/openapi.json", "/v1/nothing"]) {
    for (const wrong of [undefined, "Bearer wrong", `Basic ${token}`, token, `Bearer ${token}x`]) {
      const response = await ask(path, wrong);
      expect([path, wrong, response.status, response.headers.get("www-authenticate")]).toEqual([
        path,
        wrong,
        401,
        "Bearer",
      ]);
      expect(Problem.parse(await response.json()).code).toBe("unauthorized");
    }
  }
  expect((await ask("/v1/vms", `Bearer ${token}`)).status).toBe(200);
  expect((await ask("/v1/vms", `bearer ${token}`)).status).toBe(200);
  expect((await ask("/healthz")).status).toBe(200);
  expect((await daemon.call("GET", "/v1/vms")).status).toBe(200);
});

test("a WebSocket over TCP wants it too", async () => {
  await using daemon = await servedDaemon({ tcp: { host: "127.0.0.1", port: 0, token } });
  const url = `ws://127.0.0.1:${daemon.serving.tcpPort}/v1/vms/run`;
  const outcome = (headers: Record<string, string>) =>
    new Promise<string>((resolve) => {
      const socket = new WebSocket(url, { headers });
      socket.onopen = () => {
        socket.close();
        resolve("open");
      };
      socket.onerror = () => resolve("refused");
    });
  expect(await outcome({})).toBe("refused");
  expect(await outcome({ authorization: `Bearer ${token}` })).toBe("open");
});

test("a token's file must be its owner's alone, and the token long enough", async () => {
  const directory = mkdtempSync(join(tmpdir(), "mayfly-token-"));
  const path = join(directory, "token");
  try {
    writeFileSync(path, `${token}\n`, { mode: 0o600 });
    expect(await readToken(path)).toBe(token);
    for (const mode of [0o640, 0o604, 0o620]) {
      chmodSync(path, mode);
      expect(readToken(path)).rejects.toThrow(`its mode is ${mode.toString(8)}`);
    }
    chmodSync(path, 0o600);
    writeFileSync(path, "short");
    await expect(readToken(path)).rejects.toThrow("it has 5 characters, at least 16");
    writeFileSync(path, "a".repeat(5000));
    await expect(readToken(path)).rejects.toThrow("5000 bytes");
    await expect(readToken(join(directory, "none"))).rejects.toThrow("ENOENT");
  } finally {
    rmSync(directory, { recursive: true });
  }
});
