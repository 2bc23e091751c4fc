/** The completion scripts, tried in the shells that are there. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FakeInstallation } from "../../tests/support/mayfly-process.ts";
import { COMMANDS } from "./commands.ts";
import { completionScript, SHELLS } from "./completion.ts";

const fake = new FakeInstallation();
const bin = join(fake.directory, "bin");

beforeAll(async () => {
  mkdirSync(bin);
  const words = fake.command().map((word) => `'${word}'`);
  writeFileSync(join(bin, "mayfly"), `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`);
  chmodSync(join(bin, "mayfly"), 0o755);
  await fake.run(["run", "-d", "--name", "web", "true"]);
  await fake.run(["run", "-d", "--name", "worker", "true"]);
  await fake.run(["checkpoint", "web", "kept"]);
});
afterAll(() => fake[Symbol.asyncDispose]());

async function run(command: readonly string[]): Promise<{ stdout: string; stderr: string; exitCode: number }> {
  const env = { ...fake.environment, PATH: `${bin}:${Bun.env["PATH"]}`, HOME: fake.directory };
  const child = Bun.spawn([...command], { env, cwd: fake.directory, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { stdout, stderr, exitCode: await child.exited };
}

describe.each([...SHELLS])("%s", (shell) => {
  test.skipIf(Bun.which(shell) === null)("takes the script's syntax", async () => {
    const path = join(fake.directory, `completion.${shell}`);
    await Bun.write(path, await completionScript(shell, COMMANDS));
    expect(await run([shell, "-n", path])).toEqual({ stdout: "", stderr: "", exitCode: 0 });
  });
});

const CASES: readonly [line: string, offered: string][] = [
  ["r", "run rm refresh resume restore rmi"],
  ["run --me", "--memory --merge"],
  ["run --memory 1", ""],
  ["run --rootfs ", "alpha"],
  ["exec ", "web worker"],
  ["exec -i we", "web"],
  ["exec web ", ""],
  ["rm web w", "web worker"],
  ["template ", "build pool ls inspect verify rm"],
  ["image rm ", "alpha"],
  ["restore ", "kept"],
  ["run --snapshot k", "kept"],
  ["fork ", "web worker"],
  ["kill -s HU", "HUP"],
  ["completion ", "bash zsh fish"],
  ["--host x ps --no", "--no-trunc"],
  ["run -- l", ""],
];

test.skipIf(Bun.which("bash") === null).each(CASES)("bash completes %j", async (line, offered) => {
  const script = await completionScript("bash", COMMANDS);
  const words = ["mayfly", ...line.split(" ")].map((word) => `'${word}'`).join(" ");
  const driver = `${script}\nCOMP_WORDS=(${words}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _mayfly; echo "\${COMPREPLY[*]}"`;
  expect(await run(["bash", "-c", driver])).toEqual({ stdout: `${offered}\n`, stderr: "", exitCode: 0 });
});

test.skipIf(Bun.which("fish") === null)("fish completes the same", async () => {
  const path = join(fake.directory, "completion.fish");
  await Bun.write(path, await completionScript("fish", COMMANDS));
  // Where bash offers nothing fish offers files; options before the command are not looked at.
  for (const [line, offered] of CASES.filter(([text, words]) => words !== "" && !text.startsWith("--"))) {
    const driver = `source ${path}; complete -C 'mayfly ${line}' | string split -f1 \\t`;
    const { stdout } = await run(["fish", "--no-config", "-c", driver]);
    expect(stdout.split("\n").filter(Boolean).sort()).toEqual(offered.split(" ").sort());
  }
});

test("completion starts no daemon", async () => {
  await using other = new FakeInstallation();
  expect(await other.run(["ps", "-q", "--names"], { env: { MAYFLY_NO_START: "1" } })).toMatchObject({ exitCode: 125 });
  expect(await other.daemons()).toEqual([]);
});
