/** The whole of it: the command line as people type it, a daemon that it starts, and VMs. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeVms, newDirectory, noteGroup, plantArtifacts, plantTemplate } from "../support/engine-host.ts";
import { Installation } from "../support/mayfly-process.ts";
import { erofsOf, rootTree } from "../support/rootfs.ts";

const MAIN = join(import.meta.dir, "../../src/cli/main.ts");

describeVms("the command line over VMs", () => {
  let place: Installation;
  const mayfly = (...args: string[]) => place.run(args);

  beforeAll(async () => {
    place = new Installation(MAIN, newDirectory("cli"));
    const stateDir = join(place.directory, "state");
    mkdirSync(stateDir, { mode: 0o711 });
    noteGroup(stateDir);
    await plantTemplate(stateDir);
    await plantArtifacts(stateDir);
    expect(await mayfly("run", "--rm", "--", "true")).toEqual({ stdout: "", stderr: "", exitCode: 0 });
  });

  afterAll(async () => {
    const { stdout } = await mayfly("version", "--json");
    const pid: number | undefined = JSON.parse(stdout).daemon?.pid;
    const names = (await mayfly("ps", "-aq", "--names")).stdout.split("\n").filter(Boolean);
    if (names.length > 0) await mayfly("rm", "-f", ...names);
    if (pid !== undefined) process.kill(pid, "SIGTERM");
  });

  test("run passes on output, exit code and the guest's own kernel", async () => {
    const { stdout, stderr, exitCode } = await mayfly(
      "run",
      "--rm",
      "--",
      "sh",
      "-c",
      "uname -r; echo err >&2; exit 7",
    );
    expect({ stderr, exitCode }).toEqual({ stderr: "err\n", exitCode: 7 });
    const info = JSON.parse((await mayfly("system", "info", "--json")).stdout);
    expect(stdout).toBe(`${info.kernelVersion}\n`);
  });

  test("100 MB piped through run -i -- cat arrive unchanged", async () => {
    const { stdout } = await place.shell(
      "head -c 100000000 /dev/urandom > $MAYFLY_STATE_DIR/data; sha256sum < $MAYFLY_STATE_DIR/data; mayfly run --rm -i -- cat < $MAYFLY_STATE_DIR/data | sha256sum; rm $MAYFLY_STATE_DIR/data",
    );
    const [sent, received] = stdout.trim().split("\n");
    expect(received).toBe(sent ?? "");
  });

  test("a reader that has enough ends the VM", async () => {
    const { stdout, stderr } = await place.shell("mayfly run --rm --name yes -- yes | head -1; echo ${PIPESTATUS[0]}");
    expect({ stdout, stderr }).toEqual({ stdout: "y\n141\n", stderr: "" });
    expect(await mayfly("inspect", "yes")).toMatchObject({ stdout: "[]\n", exitCode: 125 });
  });

  test("commands that are not there or cannot run have docker's exit codes, a time limit timeout's", async () => {
    expect(await mayfly("run", "--rm", "--", "nonsense")).toMatchObject({ exitCode: 127 });
    expect(await mayfly("run", "--rm", "--", "/etc")).toMatchObject({ exitCode: 126 });
    expect(await mayfly("run", "--rm", "--timeout", "500ms", "--", "sleep", "60")).toMatchObject({ exitCode: 124 });
  });

  test("a VM in the background: ps, exec, logs, kill, wait, rm", async () => {
    const { stdout: id } = await mayfly(
      "run",
      "-d",
      "--name",
      "web",
      "-l",
      "team=a",
      "--",
      "sh",
      "-c",
      "echo up; echo warn >&2; sleep 600",
    );
    expect((await mayfly("ps", "--filter", "label=team=a", "--no-trunc", "-q")).stdout).toBe(id);
    expect(await mayfly("exec", "web", "--", "sh", "-c", "hostname; exit 3")).toEqual({
      stdout: "web\n",
      stderr: "",
      exitCode: 3,
    });
    expect(await mayfly("logs", "web")).toEqual({ stdout: "up\n", stderr: "warn\n", exitCode: 0 });
    const stats = JSON.parse((await mayfly("stats", "--no-stream", "--json", "web")).stdout);
    expect(stats).toMatchObject([{ name: "web", cpuPercent: expect.any(Number) }]);
    const waiting = mayfly("wait", "web");
    expect(await mayfly("kill", "-s", "TERM", "web")).toMatchObject({ stdout: "web\n", exitCode: 0 });
    expect(await waiting).toEqual({ stdout: "143\n", stderr: "", exitCode: 0 });
    expect(await mayfly("rm", "web")).toMatchObject({ exitCode: 0 });
    expect(await mayfly("logs", "web")).toMatchObject({ exitCode: 125, stderr: expect.stringContaining("web") });
  });

  test("cp: files and trees in both directions, and tar streams", async () => {
    const host = join(place.directory, "files");
    mkdirSync(join(host, "tree/sub"), { recursive: true });
    writeFileSync(join(host, "tree/a"), "one\n", { mode: 0o640 });
    writeFileSync(join(host, "tree/sub/b"), "two\n");
    symlinkSync("a", join(host, "tree/link"));
    await mayfly("run", "-d", "--name", "files", "--", "sleep", "600");
    for (const args of [
      [`${host}/tree/a`, "files:/tmp/"],
      [`${host}/tree`, "files:/tmp/new"],
      [`${host}/tree`, "files:/tmp/new"],
      [`${host}/tree/.`, "files:/srv"],
      ["files:/tmp/new", `${host}/back`],
      ["files:/tmp/a", `${host}/renamed`],
      ["files:/tmp/new/link", `${host}/link`],
      ["-L", "files:/tmp/new/link", `${host}/followed`],
    ]) {
      expect({ args, ...(await mayfly("cp", ...args)) }).toEqual({ args, stdout: "", stderr: "", exitCode: 0 });
    }
    const listing = "cd / && stat -c '%a %U %n' tmp/a && find tmp/new srv | sort && readlink tmp/new/link";
    expect((await mayfly("exec", "files", "sh", "-c", listing)).stdout.split("\n")).toEqual(
      [
        "640 root tmp/a",
        "srv",
        "srv/a",
        "srv/link",
        "srv/sub",
        "srv/sub/b",
        "tmp/new",
        "tmp/new/a",
        "tmp/new/link",
        "tmp/new/sub",
      ].concat([
        "tmp/new/sub/b",
        "tmp/new/tree",
        "tmp/new/tree/a",
        "tmp/new/tree/link",
        "tmp/new/tree/sub",
        "tmp/new/tree/sub/b",
        "a",
        "",
      ]),
    );
    const { stdout } = await place.shell(
      `cd ${host}; stat -c %a renamed; readlink link; cat followed back/sub/b; mayfly cp files:/tmp/new - | tar -tf - | sort | head -3; tar -cf - tree | mayfly cp - files:/root; mayfly exec files cat /root/tree/a`,
    );
    expect(stdout.split("\n")).toEqual(["640", "a", "one", "two", "new/", "new/a", "new/link", "one", ""]);
    expect(await mayfly("cp", "files:/none", host)).toMatchObject({ exitCode: 125 });
    expect(await mayfly("cp", `${host}/tree`, "files:/none/deep")).toMatchObject({ exitCode: 125 });
    expect(await mayfly("cp", `${host}/tree`, "files:/tmp/a")).toMatchObject({
      exitCode: 125,
      stderr: expect.stringContaining("it is a file"),
    });
  });

  test("cp leaves no directory behind where the image has no tar", async () => {
    const root = await erofsOf(await rootTree());
    const host = newDirectory("cp-without-tar");
    mkdirSync(join(host, "tree"));
    expect(await mayfly("run", "-d", "--name", "bare", "--rootfs", root, "--", "sleep", "1000")).toMatchObject({
      exitCode: 0,
    });
    const attempts = [
      ["bare:/etc", join(host, "copy")],
      [join(host, "tree"), "bare:/tmp"],
      [join(host, "tree"), "bare:/tmp/new"],
    ];
    for (const args of attempts) {
      const { stderr, exitCode } = await mayfly("cp", ...args);
      expect([exitCode, stderr]).toEqual([127, expect.stringContaining("VM bare has no tar")]);
    }
    expect(readdirSync(host)).toEqual(["tree"]);
    expect((await mayfly("exec", "bare", "ls", "/tmp")).stdout).toBe("");
    await mayfly("rm", "-f", "bare");
  });

  test("the daemon killed: VMs go on, and the next command finds them", async () => {
    await mayfly("run", "-d", "--name", "survivor", "--", "sleep", "600");
    const pid = JSON.parse((await mayfly("version", "--json")).stdout).daemon.pid;
    process.kill(pid, "SIGKILL");
    const { stdout, exitCode } = await mayfly("exec", "survivor", "cat", "/proc/uptime");
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^\d+\.\d+ \d+\.\d+\n$/);
    expect(readFileSync(join(place.directory, "state/mayflyd.log"), "utf8")).toContain("msg=ready");
  });

  test("requests that cannot be met say why", async () => {
    for (const [args, words] of [
      [["-m", "1m", "--", "true"], "at least"],
      [["-m", "4000g", "--", "true"], "MiB of memory"],
      [["--rootfs", "nope", "true"], "nope"],
      [["--rootfs", "/etc/passwd", "true"], "root file system"],
    ] as const) {
      expect(await mayfly("run", "--rm", ...args)).toMatchObject({
        exitCode: 125,
        stdout: "",
        stderr: expect.stringContaining(words),
      });
    }
  });
});
