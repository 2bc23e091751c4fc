import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { parseArguments, readOptions } from "./arguments.ts";
import { command as exec } from "./commands/exec.ts";
import { command as run } from "./commands/run.ts";
import { COMMANDS } from "./commands.ts";
import { type Command, type CommandEntry, UNIVERSAL_OPTIONS } from "./specification.ts";

const parseRun = (...argv: string[]) => parseArguments(run.spec, UNIVERSAL_OPTIONS, argv, "mayfly run");
const parseExec = (...argv: string[]) => parseArguments(exec.spec, UNIVERSAL_OPTIONS, argv, "mayfly exec");

function messageOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(MayflyError);
    return error instanceof MayflyError ? `${error.code}: ${error.message}` : "";
  }
  return "nothing was thrown";
}

describe("options end at the guest's command", () => {
  test.each([[["sh", "-c", "exit 7"]], [["--", "sh", "-c", "exit 7"]]])("run %j", (argv) => {
    expect(parseRun("--rm", ...argv)).toMatchObject({
      options: { rm: true, interactive: false },
      operands: ["sh", "-c", "exit 7"],
    });
  });

  test("a second -- belongs to the command", () => {
    expect(parseRun("--", "env", "--", "x").operands).toEqual(["env", "--", "x"]);
    expect(parseRun("image", "env", "--", "x").operands).toEqual(["image", "env", "--", "x"]);
    expect(parseRun("image", "--", "env", "x").operands).toEqual(["image", "env", "x"]);
  });

  test.each([
    [["-it", "web", "sh", "-i"]],
    [["-it", "web", "--", "sh", "-i"]],
    [["-i", "-t", "--", "web", "sh", "-i"]],
  ])("exec %j", (argv) => {
    expect(parseExec(...argv)).toMatchObject({
      options: { interactive: true, tty: true, detach: false },
      operands: ["web", "sh", "-i"],
    });
  });

  test("--help and --json after the command are the command's", () => {
    expect(parseRun("ls", "--help", "--json").options).toMatchObject({ help: false, json: false });
  });
});

test("whether -- stands before the operands is told: there is no image then", () => {
  expect(parseRun("--rm", "--", "sh").dashes).toBe(true);
  expect(parseRun("--rm", "image", "--", "sh").dashes).toBe(false);
  expect(parseRun("--rm", "image").dashes).toBe(false);
});

describe("options in every spelling", () => {
  test.each([
    [["-m", "256m"]],
    [["-m256m"]],
    [["-m=256m"]],
    [["--memory", "256m"]],
    [["--memory=256m"]],
    [["-itm256m"]],
    [["-itm", "256m"]],
  ])("%j", (argv) => {
    expect(parseRun(...argv, "true")).toMatchObject({ options: { memory: "256m" }, operands: ["true"] });
  });

  test("lists keep their order, the last value wins, values may look like options or be empty", () => {
    const { options } = parseRun(
      "-e",
      "A=1",
      "--env=B=2",
      "-e=C=-x",
      "--name",
      "a",
      "--name=",
      "--label",
      "--x",
      "true",
    );
    expect(options).toMatchObject({ env: ["A=1", "B=2", "C=-x"], name: "", label: ["--x"] });
  });

  test("flags take true and false, in both forms", () => {
    expect(parseRun("--rm=true", "-i=false", "--tty=false", "true").options).toMatchObject({
      rm: true,
      interactive: false,
      tty: false,
    });
  });

  test("-h is the host name in run, and help elsewhere", () => {
    expect(parseRun("-h", "box", "true").options).toMatchObject({ hostname: "box", help: false });
    expect(parseExec("-h").options).toMatchObject({ help: true });
  });

  test("a lone - is an operand", () => {
    expect(readOptions({}, ["-", "a"], "mayfly cp", false).operands).toEqual(["-", "a"]);
  });
});

describe("mistakes are named", () => {
  test.each([
    [
      () => parseRun("--memroy", "1g", "true"),
      "invalid_argument: run: unknown option --memroy (did you mean --memory?)",
    ],
    [() => parseRun("-x", "true"), "invalid_argument: run: unknown option -x"],
    [() => parseRun("-ix", "true"), "invalid_argument: run: unknown option -x"],
    [() => parseRun("--name"), "invalid_argument: run: --name needs a value"],
    [() => parseRun("-itm"), "invalid_argument: run: -m needs a value"],
    [() => parseRun("--rm=maybe", "true"), 'invalid_argument: run: --rm takes no value, or true or false, not "maybe"'],
    [() => parseExec("web"), "invalid_argument: exec: COMMAND is missing"],
    [() => parseRun("--__proto__", "x"), "invalid_argument: run: unknown option --__proto__"],
  ])("%p", (act, message) => {
    expect(messageOf(act)).toBe(message);
  });
});

test("what is written with options in canonical form is read back, whatever the values are", () => {
  const value = fc.string({ minLength: 1 });
  fc.assert(
    fc.property(fc.array(value), fc.boolean(), value, fc.array(fc.string()), (env, rm, name, rest) => {
      const argv = [
        ...env.map((entry) => `--env=${entry}`),
        ...(rm ? ["--rm"] : []),
        `--name=${name}`,
        "--",
        "x",
        ...rest,
      ];
      expect(parseRun(...argv)).toMatchObject({ options: { env, rm, name }, operands: ["x", ...rest] });
    }),
  );
});

/** All commands with the words that name them. */
async function everyCommand(entries: readonly CommandEntry[], path = "mayfly"): Promise<[string, Command][]> {
  const found: [string, Command][] = [];
  for (const entry of entries) {
    const name = `${path} ${entry.name}`;
    if (entry.children !== undefined) found.push(...(await everyCommand(entry.children, name)));
    if (entry.load !== undefined) found.push([name, await entry.load()]);
  }
  return found;
}

const all = await everyCommand(COMMANDS);

describe.each(all)("%s", (name, command) => {
  const { spec } = command;

  test("has a description, and examples that its own parser takes", () => {
    expect(spec.description).not.toBe("");
    expect(spec.examples.length).toBeGreaterThan(0);
    // `pull` is `image pull` as well: one name in the examples does.
    const names = all.filter(([, other]) => other === command).map(([own]) => own);
    const ownExamples = spec.examples.flatMap(([line]) => {
      const own = names.find((candidate) => line.includes(candidate));
      return own === undefined ? [] : [{ line, own }];
    });
    expect(ownExamples.length).toBeGreaterThan(0);
    for (const { line, own } of ownExamples) {
      const words = line.slice(line.indexOf(own) + own.length).split(/\s+[|>&]|\)/)[0] ?? "";
      parseArguments(spec, UNIVERSAL_OPTIONS, splitWords(words), name);
    }
  });

  test("has options with one letter each", () => {
    const letters = Object.values(spec.options).flatMap(({ short }) => short ?? []);
    expect(new Set(letters).size).toBe(letters.length);
    expect(letters).not.toContain("H");
    for (const key of Object.keys(spec.options)) expect(key).toMatch(/^[a-z]+(-[a-z]+)*$/);
  });

  test("takes --json, --host and --help", () => {
    const operands = spec.operands.filter(({ optional }) => !optional).map(({ name: operand }) => operand);
    const { options } = parseArguments(
      spec,
      UNIVERSAL_OPTIONS,
      ["--json", "--host", "unix:///x", "--", ...operands],
      name,
    );
    expect(options).toMatchObject({ json: true, host: "unix:///x", help: false });
  });
});

/** Splits at blanks as a shell does, single quotes kept together. */
function splitWords(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\$\([^)]*\)|\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
}
