/** Building from source: one at a time, a log, and nothing left of one that failed or was killed. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { isRoot, namesIn, readOptional, removePath, temporaryDirectory, writeText } from "../sys/paths.ts";
import { runTool } from "../sys/tool.ts";
import { inBuildPlace, sweepBuilds } from "./source-build.ts";

let stateDir = "";

beforeEach(async () => {
  stateDir = await temporaryDirectory("mayfly-build");
});
afterEach(() => removePath(stateDir));

const context = (signal?: AbortSignal) => ({ report() {}, signal });

async function failure(action: Promise<unknown>): Promise<MayflyError> {
  const error = await action.catch((reason: unknown) => reason);
  if (error instanceof MayflyError) return error;
  throw new Error("it did not fail");
}

describe.skipIf(!isRoot())("a build from source", () => {
  test("has an empty directory that is gone after it, and a log that stays", async () => {
    const seen = await inBuildPlace("x", 1, { stateDir }, async (place) => {
      expect(await namesIn(place.directory)).toEqual([]);
      await writeText(`${place.directory}/file`, "x");
      await place.run(["sh", "-c", "echo out; echo err >&2"], context(), { cwd: place.directory });
      return place.directory;
    });
    expect(await namesIn(seen)).toEqual([]);
    const log = await readOptional(`${stateDir}/build/x.log`);
    expect(log?.split("\n").toSorted()).toEqual(["", "+ sh -c echo out; echo err >&2", "err", "out"]);
  });

  test("is given the environment that it asks for, and no other", async () => {
    process.env["KCFLAGS"] = "-Dwrong";
    const lines: string[] = [];
    const options = { cwd: "/", env: { WANTED: "1" }, onLine: (line: string) => void lines.push(line) };
    await inBuildPlace("x", 1, { stateDir }, (place) => place.run(["env"], context(), options));
    delete process.env["KCFLAGS"];
    expect(lines.map((line) => line.split("=")[0]).toSorted()).toEqual(["LC_ALL", "PATH", "WANTED"]);
  });

  test("that fails names its log, and leaves only that", async () => {
    const build = inBuildPlace("x", 1, { stateDir }, (place) =>
      place.run(["sh", "-c", "echo broken >&2; exit 3"], context(), { cwd: place.directory }),
    );
    const error = await failure(build);
    expect(error).toMatchObject({ code: "tool_failed", details: { exitCode: 3, path: `${stateDir}/build/x.log` } });
    expect(await namesIn(`${stateDir}/build`)).toEqual(["x.lock", "x.log"]);
  });

  test("that is interrupted takes all its children with it", async () => {
    const mark = `${(await temporaryDirectory("mayfly-mark")).split("/").pop()}`;
    const abort = new AbortController();
    const command = ["sh", "-c", `setsid sh -c 'echo begun; exec sleep 600' ${mark} & wait`, mark];
    const build = inBuildPlace("x", 1, { stateDir }, (place) =>
      place.run(command, context(abort.signal), { cwd: "/", onLine: () => abort.abort() }),
    );
    expect((await failure(build)).code).toBe("cancelled");
    const { stdout } = await runTool(["ps", "-eo", "args"]);
    expect(stdout.split("\n").filter((line) => line.includes(mark))).toEqual([]);
  });

  test("waits for another one of its name, which finds its directory for itself", async () => {
    let at = 0;
    const most: number[] = [];
    const build = () =>
      inBuildPlace("x", 1, { stateDir }, async (place) => {
        at += 1;
        most.push(at);
        await place.run(["true"], context(), { cwd: "/" });
        at -= 1;
      });
    await Promise.all([build(), build()]);
    expect(most).toEqual([1, 1]);
  });

  test("that resumes finds what an interrupted one of the same has left, and nothing of another", async () => {
    const seen: string[][] = [];
    const build = (key: string, act: () => Promise<void>) =>
      inBuildPlace(
        "x",
        1,
        { stateDir },
        async (place) => {
          await place.begin(key);
          seen.push((await namesIn(place.directory)).filter((name) => !name.startsWith(".")));
          await writeText(`${place.directory}/${key}${seen.length}`, "x");
          await act();
        },
        { resumes: true },
      );
    const interrupted = async () => {
      throw new MayflyError("cancelled", "Interrupted");
    };
    const broken = async () => {
      throw new MayflyError("tool_failed", "Broken");
    };
    expect((await failure(build("a", interrupted))).code).toBe("cancelled");
    expect((await failure(build("a", interrupted))).code).toBe("cancelled");
    expect((await failure(build("b", interrupted))).code).toBe("cancelled");
    expect((await failure(build("b", broken))).code).toBe("tool_failed");
    await build("b", async () => {});
    expect(seen).toEqual([[], ["a1"], [], ["b3"], []]);
    expect(await namesIn(`${stateDir}/build`)).toEqual(["x.lock", "x.log"]);
  });

  test("does not begin without the space that it needs", async () => {
    const error = await failure(inBuildPlace("x", 1e18, { stateDir }, async () => {}));
    expect(error.code).toBe("disk_full");
    expect(error.message).toContain("1000000000.0 GB are needed");
  });

  test("what a killed one has left is swept, what is at work is not", async () => {
    await writeText(`${stateDir}/build/killed/file`, "x");
    await writeText(`${stateDir}/build/killed.log`, "x");
    await inBuildPlace("alive", 1, { stateDir }, async (place) => {
      await writeText(`${place.directory}/file`, "x");
      await sweepBuilds(stateDir);
      expect(await namesIn(place.directory)).toEqual(["file"]);
    });
    expect((await namesIn(`${stateDir}/build`)).filter((name) => !/\.(lock|log)$/.test(name))).toEqual([]);
  });
});
