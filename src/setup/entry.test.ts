/** The shell entry `./mayfly`, with npm and Bun replaced by small scripts. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import {
  copyPath,
  makeDirectory,
  makeLink,
  readOptional,
  removePath,
  temporaryDirectory,
  writeText,
} from "../sys/paths.ts";
import { runTool, type ToolResult } from "../sys/tool.ts";

const CHECKOUT = join(import.meta.dir, "../..");

/** Installs a Bun that prints its arguments; says that it ran; is slow enough for two to meet. */
const NPM = `#!/bin/sh
echo "npm $*" >> "$NPM_LOG"
echo "noise on standard output"
rm -rf node_modules
mkdir -p node_modules/bun/bin
[ -z "$NPM_FAILS" ] || exit 7
[ -z "$NPM_KILLED" ] || kill -9 $PPID $$
sleep 0.2
cat > node_modules/bun/bin/bun.exe <<'BUN'
#!/bin/sh
[ "$1" != --version ] || exit \${BUN_BROKEN:-0}
for word; do printf '%s\\n' "$word"; done
BUN
chmod +x node_modules/bun/bin/bun.exe
`;

let work = "";
let root = "";

beforeEach(async () => {
  work = await temporaryDirectory("mayfly-entry");
  root = `${work}/check out`;
  await copyPath(join(CHECKOUT, "mayfly"), `${root}/mayfly`);
  await writeText(`${root}/package-lock.json`, "{}\n");
  await writeText(`${work}/bin/npm`, NPM, 0o755);
});

afterEach(async () => {
  await runTool(["chmod", "-R", "u+w", work]);
  await removePath(work);
});

interface Start {
  env?: Record<string, string>;
  cwd?: string;
  path?: string;
}

function start(words: string[], options: Start = {}): Promise<ToolResult> {
  const env = { PATH: `${work}/bin:/usr/bin:/bin`, NPM_LOG: `${work}/npm.log`, ...options.env };
  const assignments = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  return runTool(["env", ...assignments, options.path ?? `${root}/mayfly`, ...words], { cwd: options.cwd ?? work });
}

async function installations(): Promise<number> {
  return ((await readOptional(`${work}/npm.log`)) ?? "").split("\n").filter((line) => line.startsWith("npm ci")).length;
}

async function failure(action: Promise<unknown>): Promise<MayflyError> {
  const error = await action.catch((reason: unknown) => reason);
  if (error instanceof MayflyError) return error;
  throw new Error("it did not fail");
}

const STARTED = (directory: string) => ["--no-env-file", "--config=/dev/null", `${directory}/src/cli/main.ts`];

describe("./mayfly", () => {
  test("installs once, says so on standard error only, then is silent", async () => {
    const first = await start(["run", "-t", "--", "a b", ""]);
    expect(first.stdout.split("\n")).toEqual([...STARTED(root), "run", "-t", "--", "a b", "", ""]);
    expect(first.stderr).toContain("installing npm packages");
    const second = await start(["ps"]);
    expect(second.stderr).toBe("");
    expect(await installations()).toBe(1);
  });

  test("installs again when package-lock.json changed, not when only its time did", async () => {
    await start([]);
    await runTool(["touch", "-d", "2030-01-01", `${root}/package-lock.json`]);
    expect((await start([])).stderr).toBe("");
    expect(await installations()).toBe(1);
    await writeText(`${root}/package-lock.json`, '{"changed":1}\n');
    await runTool(["touch", "-d", "2031-01-01", `${root}/package-lock.json`]);
    await start([]);
    expect(await installations()).toBe(2);
  });

  test("two starts at once install once", async () => {
    const both = await Promise.all([start(["one"]), start(["two"])]);
    expect(await installations()).toBe(1);
    expect(both.map(({ stdout }) => stdout.split("\n").at(-2))).toEqual(["one", "two"]);
  });

  test("an installation that failed or was killed is repeated", async () => {
    const failed = await failure(start([], { env: { NPM_FAILS: "1" } }));
    expect(failed.details.stderrTail).toContain("npm ended with code 7");
    expect(failed.details.exitCode).toBe(125);
    await failure(start([], { env: { NPM_KILLED: "1" } }));
    await start([]);
    expect(await installations()).toBe(3);
  });

  test("works from anywhere, through links", async () => {
    await makeDirectory(`${work}/links`);
    await makeLink("../check out/mayfly", `${work}/links/relative`);
    await makeLink(`${work}/links/relative`, `${work}/links/absolute`);
    for (const [path, cwd] of [
      [`${work}/links/absolute`, "/"],
      ["links/relative", work],
      ["./mayfly", root],
    ] as const) {
      const { stdout } = await start(["x"], { path, cwd });
      expect(stdout).toContain("/src/cli/main.ts\nx\n");
    }
    expect(await installations()).toBe(1);
  });

  test("takes Bun from its platform package when npm skipped the install script", async () => {
    const skipped = NPM.replaceAll("node_modules/bun/bin/bun.exe", "node_modules/@oven/bun-linux-x64/bin/bun").replace(
      "mkdir -p node_modules/bun/bin",
      "mkdir -p node_modules/@oven/bun-linux-x64/bin",
    );
    await writeText(`${work}/bin/npm`, skipped, 0o755);
    expect((await start(["x"])).stdout.split("\n")).toContain("x");
    expect((await start(["x"])).stderr).toBe("");
  });

  test("takes over what npm has installed by hand", async () => {
    await runTool(["env", `NPM_LOG=${work}/other.log`, `${work}/bin/npm`, "ci"], { cwd: root });
    await writeText(`${root}/node_modules/.package-lock.json`, "{}");
    expect((await start(["x"])).stderr).toBe("");
    expect(await installations()).toBe(0);
  });

  test("says what to do without npm, and when no Bun runs", async () => {
    await removePath(`${work}/bin/npm`);
    await makeDirectory(`${work}/bin`);
    for (const tool of ["sh", "env", "id", "readlink", "flock", "cmp"])
      await makeLink(`/usr/bin/${tool}`, `${work}/bin/${tool}`);
    const error = await failure(start([], { env: { PATH: `${work}/bin` } }));
    expect(error.details.stderrTail).toMatch(/apt-get install -y npm$/);
    await writeText(`${work}/bin/npm`, NPM, 0o755);
    const broken = await failure(start([], { env: { BUN_BROKEN: "1" } }));
    expect(broken.details.stderrTail).toContain("no Bun");
  });

  test("in an installed package there is nothing to install", async () => {
    await runTool(["env", `NPM_LOG=${work}/other.log`, `${work}/bin/npm`, "ci"], { cwd: root });
    await removePath(`${root}/package-lock.json`);
    for (const word of ["nested", "again"]) expect((await start([word])).stdout.split("\n")).toContain(word);
    await runTool(["mv", `${root}/node_modules/bun`, `${work}/bun`]);
    await removePath(`${root}/node_modules`);
    expect((await start(["hoisted"])).stdout.split("\n")).toContain("hoisted");
    expect(await installations()).toBe(0);
  });

  test("works in a read-only checkout that is set up", async () => {
    await start([]);
    await runTool(["chmod", "-R", "a-w", root]);
    expect((await start(["x"])).stderr).toBe("");
  });
});
