/** The command line and the library over TCP, with a token. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { FakeInstallation } from "../../tests/support/mayfly-process.ts";
import { connect } from "../client/index.ts";

const TOKEN = "0123456789abcdef0123456789abcdef";
const fake = new FakeInstallation();
let url = "";

beforeAll(async () => {
  const tokenFile = join(fake.directory, "token");
  writeFileSync(tokenFile, `${TOKEN}\n`, { mode: 0o600 });
  const daemon = fake.spawn(["daemon", "--listen", "127.0.0.1:0", "--token-file", tokenFile]);
  let log = "";
  for await (const chunk of daemon.stderr) {
    log += new TextDecoder().decode(chunk);
    const port = /listen=\S*127\.0\.0\.1:(\d+)/.exec(log)?.[1];
    if (port === undefined) continue;
    url = `http://127.0.0.1:${port}`;
    return;
  }
  throw new Error(`the daemon ended: ${log}`);
});
afterAll(() => fake[Symbol.asyncDispose]());

test("commands and streams go through with the token", async () => {
  const env = { MAYFLY_TOKEN: TOKEN, MAYFLY_HOST: url };
  expect(
    await fake.run(["run", "-i", "--", "sh", "-c", "cat; exit 4"], { env, stdin: new Blob(["masked\n"]) }),
  ).toEqual({
    stdout: "masked\n",
    stderr: "",
    exitCode: 4,
  });
  expect(await fake.run(["ps", "-q"], { env })).toMatchObject({ exitCode: 0 });
  const { stdout } = await fake.shell(
    `export MAYFLY_TOKEN=${TOKEN}; head -c 3000000 /dev/urandom > $MAYFLY_RUN_DIR/r; mayfly -H ${url} run -i -- cat < $MAYFLY_RUN_DIR/r | cmp - $MAYFLY_RUN_DIR/r && echo same`,
  );
  expect(stdout).toBe("same\n");
});

test("without it, or with another, they are refused", async () => {
  for (const args of [["run", "true"], ["ps"]]) {
    const { stderr, exitCode } = await fake.run(["--json", "--host", url, ...args], {
      env: { MAYFLY_TOKEN: "wrong-wrong-wrong-wrong-wrong" },
    });
    expect(exitCode).toBe(125);
    expect(JSON.parse(stderr)).toMatchObject({ code: "unauthorized", kind: "permission_denied" });
  }
  expect(connect({ url })).rejects.toMatchObject({ code: "unauthorized" });
});

test("the library connects by URL", async () => {
  await using mayfly = await connect({ url, token: TOKEN });
  const process = await mayfly.vms.run({ command: ["echo", "by tcp"] });
  expect(await process.collect()).toEqual({ stdout: "by tcp\n", stderr: "", exitCode: 0, signal: 0 });
});

test("addresses that are none are refused", async () => {
  for (const host of ["ftp://x", "localhost:1", "http://x/path", "unix:/x"]) {
    expect(await fake.run(["--host", host, "ps"])).toMatchObject({
      exitCode: 125,
      stderr: expect.stringContaining("--host is"),
    });
  }
});
