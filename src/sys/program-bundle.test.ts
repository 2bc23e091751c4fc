import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { bundledProgram } from "./program-bundle.ts";

let directory: string;
let root: string;
let programs: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "mayfly-bundle-"));
  root = join(directory, "checkout");
  programs = join(directory, "state/program");
  write("src/word.ts", `export const word = "one";`);
  write("src/sys/place.ts", "export const place = import.meta.dir;");
  write(
    "src/main.ts",
    `import { word } from "./word.ts"; import { place } from "./sys/place.ts"; console.log(word, place);`,
  );
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

/** Programs that are kept. */
const kept = () => readdirSync(programs).filter((name) => name !== "lock");

async function output(path: string | undefined): Promise<string> {
  if (path === undefined) throw new Error("there is no program");
  const child = Bun.spawn([process.execPath, path], { stdout: "pipe", stderr: "inherit" });
  return (await new Response(child.stdout).text()).trim();
}

test("a program is made once, says what the sources say, and knows where they lie", async () => {
  let made = 0;
  const build = async () => {
    made += 1;
    return "console.log(1)";
  };
  const counted = { root, build };
  expect(await bundledProgram("src/main.ts", programs, counted)).toBeDefined();
  expect(await bundledProgram("src/main.ts", programs, counted)).toBeDefined();
  expect(made).toBe(1);
  rmSync(programs, { recursive: true });
  const path = await bundledProgram("src/main.ts", programs, { root });
  expect(await output(path)).toBe(`one ${root}/src/sys`);
  expect(readdirSync(dirname(path ?? ""))).toEqual(["program.js", "program.sha256"]);
});

test("it is made anew when a source changes, but not for a test", async () => {
  const first = await bundledProgram("src/main.ts", programs, { root });
  write("src/word.test.ts", "throw new Error();");
  expect(await bundledProgram("src/main.ts", programs, { root })).toBe(first);
  write("src/word.ts", `export const word = "two";`);
  const second = await bundledProgram("src/main.ts", programs, { root });
  expect(second).not.toBe(first);
  expect(await output(second)).toStartWith("two ");
  expect(await output(first)).toStartWith("one ");
});

test("programs of other sources go after a day", async () => {
  const first = await bundledProgram("src/main.ts", programs, { root });
  const dayAgo = new Date(Date.now() - 25 * 3600 * 1000);
  utimesSync(dirname(first ?? ""), dayAgo, dayAgo);
  write("src/word.ts", `export const word = "two";`);
  const second = await bundledProgram("src/main.ts", programs, { root });
  expect(kept()).toEqual([
    dirname(second ?? "")
      .split("/")
      .at(-1) ?? "",
  ]);
});

test("two at once make one program", async () => {
  let made = 0;
  const build = () => {
    made += 1;
    return new Promise<string>((resolve) => setImmediate(() => resolve("console.log('whole')")));
  };
  const paths = await Promise.all(
    Array.from({ length: 5 }, () => bundledProgram("src/main.ts", programs, { root, build })),
  );
  expect(new Set(paths).size).toBe(1);
  expect(made).toBe(1);
  expect(await output(paths[0])).toBe("whole");
});

test("what is damaged is made again", async () => {
  const path = (await bundledProgram("src/main.ts", programs, { root })) ?? "";
  for (const damage of [() => writeFileSync(path, readFileSync(path).subarray(0, 20)), () => rmSync(path)]) {
    damage();
    expect(await bundledProgram("src/main.ts", programs, { root })).toBe(path);
    expect(await output(path)).toStartWith("one ");
  }
  expect(kept()).toHaveLength(1);
});

test("without sources, after an error, or where nothing can be written there is none, and nothing is left", async () => {
  const failing = { root, build: () => Promise.reject(new Error("no")) };
  expect(await bundledProgram("src/main.ts", programs, failing)).toBeUndefined();
  expect(await bundledProgram("src/absent.ts", programs, { root })).toBeUndefined();
  expect(await bundledProgram("src/main.ts", programs, { root: join(directory, "nowhere") })).toBeUndefined();
  expect(kept()).toEqual([]);
  writeFileSync(join(directory, "file"), "");
  expect(await bundledProgram("src/main.ts", join(directory, "file/program"), { root })).toBeUndefined();
});

test("programs are their owner's only", async () => {
  mkdirSync(programs, { recursive: true });
  chmodSync(programs, 0o777);
  await bundledProgram("src/main.ts", programs, { root });
  const { mode } = await Bun.file(programs).stat();
  expect(mode & 0o777).toBe(0o700);
});
