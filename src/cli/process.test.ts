/** The command line as processes, over a daemon whose engine runs commands on this host. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FakeInstallation } from "../../tests/support/mayfly-process.ts";

const fake = new FakeInstallation();
afterAll(() => fake[Symbol.asyncDispose]());

describe("run", () => {
  test("passes on output, standard error and the exit code", async () => {
    expect(await fake.run(["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])).toEqual({
      stdout: "out\n",
      stderr: "err\n",
      exitCode: 7,
    });
  });

  test("passes environment and directory", async () => {
    const { stdout } = await fake.run(
      ["run", "-e", "A=1 2", "-e", "TAKEN", "-e", "MISSING", "-w", "/usr", "--", "sh", "-c", "pwd; env | sort"],
      {
        env: { TAKEN: "here" },
      },
    );
    expect(stdout.split("\n")).toEqual(expect.arrayContaining(["/usr", "A=1 2", "TAKEN=here"]));
    expect(stdout).not.toContain("MISSING");
  });

  test("reads an environment file", async () => {
    const path = join(fake.directory, "env");
    await Bun.write(path, "# comment\nA=x y\r\n\n  B=2\nTAKEN\n");
    const { stdout } = await fake.run(["run", "--env-file", path, "-e", "B=3", "--", "sh", "-c", "echo $A/$B/$TAKEN"], {
      env: { TAKEN: "t" },
    });
    expect(stdout).toBe("x y/3/t\n");
    expect(await fake.run(["run", "--env-file", "/nonexistent", "--", "true"])).toMatchObject({ exitCode: 125 });
  });

  test("without -i standard input is empty", async () => {
    expect(await fake.run(["run", "--", "wc", "-c"], { stdin: new Blob(["hello"]) })).toMatchObject({ stdout: "0\n" });
  });

  test("with -i standard input goes in, and its end", async () => {
    expect(await fake.run(["run", "-i", "--", "cat"], { stdin: new Blob(["hi\n"]) })).toEqual({
      stdout: "hi\n",
      stderr: "",
      exitCode: 0,
    });
  });

  test("48 MB go through unchanged, at the pace of a slow reader", async () => {
    const { stdout } = await fake.shell(
      "head -c 48000000 /dev/urandom > $MAYFLY_STATE_DIR/random; < $MAYFLY_STATE_DIR/random sha256sum; mayfly run -i -- cat < $MAYFLY_STATE_DIR/random | (sleep 0.5; sha256sum)",
    );
    const [sent, received] = stdout.trim().split("\n");
    expect(received).toBe(sent ?? "");
  });

  test.each([100_000, 300_000, 700_000])(
    "nothing of %d bytes is lost when all ends before the reader begins",
    async (bytes) => {
      const { stdout } = await fake.shell(`mayfly run -- head -c ${bytes} /dev/zero | (sleep 0.3; wc -c)`);
      expect(stdout).toBe(`${bytes}\n`);
    },
  );

  test("a process that does not read its input is no deadlock", async () => {
    const { stdout, exitCode } = await fake.shell(
      "head -c 20000000 /dev/zero | mayfly run -i -- sh -c 'echo done; exit 3'",
    );
    expect({ stdout, exitCode }).toEqual({ stdout: "done\n", exitCode: 3 });
  });

  test("unknown commands end with 127, as text and as JSON", async () => {
    expect(await fake.run(["run", "--", "nonsense"])).toEqual({
      stdout: "",
      stderr: "mayfly: Cannot run nonsense: it is not found in PATH\n",
      exitCode: 127,
    });
    const { stderr, exitCode } = await fake.run(["--json", "run", "--", "nonsense"]);
    expect(exitCode).toBe(127);
    expect(JSON.parse(stderr)).toMatchObject({ code: "command_not_found", kind: "not_found" });
  });

  test("mistakes end with 125 and a hint", async () => {
    expect(await fake.run(["run", "--memory", "lots", "--", "true"])).toEqual({
      stdout: "",
      stderr: 'mayfly: --memory is "lots", which is not a size such as 128m or 1g\n',
      exitCode: 125,
    });
    const { stderr } = await fake.run(["run", "--json", "--memroy", "1g"]);
    expect(JSON.parse(stderr)).toMatchObject({ code: "invalid_argument", details: { remedy: "mayfly run --help" } });
  });

  test("-it without a terminal is refused as docker does", async () => {
    expect(await fake.run(["run", "-it", "--", "sh"], { stdin: new Blob([""]) })).toMatchObject({
      stderr: expect.stringContaining("mayfly: the input device is not a TTY\n"),
      exitCode: 125,
    });
  });

  test("--timeout ends with 124", async () => {
    expect(await fake.run(["run", "--timeout", "300ms", "--", "sleep", "30"])).toMatchObject({
      exitCode: 124,
      stderr: "",
    });
    expect(await fake.run(["run", "--timeout", "30s", "--", "sh", "-c", "kill -9 $$"])).toMatchObject({
      exitCode: 137,
    });
  });

  test("-d prints the id and goes", async () => {
    const { stdout, exitCode } = await fake.run(["run", "-d", "--name", "background", "--", "sleep", "1"]);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^vm_[a-z2-7]{26}\n$/);
    const { stdout: json } = await fake.run(["inspect", "background"]);
    expect(JSON.parse(json)).toMatchObject([{ id: stdout.trim(), name: "background" }]);
  });
});

describe("broken pipes and signals", () => {
  test("a reader that has enough ends it with 141, quietly, and the process is stopped", async () => {
    const { stdout, stderr } = await fake.shell(
      "mayfly run -- sh -c 'echo $$; exec yes' | head -1; echo ${PIPESTATUS[0]}",
    );
    const [pid = "", status] = stdout.trim().split("\n");
    expect({ status, stderr }).toEqual({ status: "141", stderr: "" });
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  });

  test("a full disk is said", async () => {
    expect(await fake.shell("mayfly run -- echo hi > /dev/full")).toMatchObject({
      exitCode: 125,
      stderr: expect.stringContaining("ENOSPC"),
    });
    expect(await fake.shell("mayfly ps -a > /dev/full")).toMatchObject({
      exitCode: 125,
      stderr: expect.stringContaining("ENOSPC"),
    });
  });

  test("commands that print into a closed pipe end with 141 and say nothing", async () => {
    expect(await fake.shell("mayfly ps -a | true; echo ${PIPESTATUS[0]}")).toMatchObject({
      stdout: expect.stringMatching(/^(0|141)\n$/),
      stderr: "",
    });
  });

  test.each([
    ["SIGINT", "INT"],
    ["SIGTERM", "TERM"],
    ["SIGQUIT", "QUIT"],
    ["SIGUSR1", "USR1"],
  ] as const)("%s is passed on, and the process' own exit code comes back", async (signal, name) => {
    const child = fake.spawn([
      "run",
      "--",
      "sh",
      "-c",
      `trap 'echo got ${name}; exit 9' ${name}; echo ready; while :; do sleep 0.05; done`,
    ]);
    let output = "";
    for await (const chunk of child.stdout) {
      output += new TextDecoder().decode(chunk);
      if (output === "ready\n") child.kill(signal);
    }
    expect(output).toBe(`ready\ngot ${name}\n`);
    expect(await child.exited).toBe(9);
  });

  test("signals that were ignored from the start stay ignored, as under nohup", async () => {
    const command = fake.command("run", "--", "sh", "-c", "trap 'echo told' HUP; echo ready; sleep 0.4; echo end");
    const child = Bun.spawn(["bash", "-c", "trap '' HUP; exec \"$@\"", "bash", ...command], {
      env: fake.environment,
      stdout: "pipe",
    });
    let output = "";
    for await (const chunk of child.stdout) {
      output += new TextDecoder().decode(chunk);
      if (output === "ready\n") child.kill("SIGHUP");
    }
    expect({ output, exitCode: await child.exited }).toEqual({ output: "ready\nend\n", exitCode: 0 });
  });

  test("a process that ignores SIGINT is left after the third", async () => {
    const child = fake.spawn(["run", "--", "sh", "-c", "trap 'echo no' INT; echo $$; while :; do sleep 0.05; done"]);
    let output = "";
    for await (const chunk of child.stdout) {
      output += new TextDecoder().decode(chunk);
      child.kill("SIGINT");
    }
    expect(await child.exited).toBe(130);
    expect(await new Response(child.stderr).text()).toContain("left the process after three termination signals");
    const pid = Number(output.split("\n")[0]);
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    process.kill(pid, "SIGKILL");
  });

  test("the flags of a shared standard output are put back", async () => {
    const { stdout } = await fake.shell(
      "(mayfly run -- head -c 300000 /dev/zero; grep ^flags /proc/self/fdinfo/1) | tail -c 16 | cut -f2",
    );
    expect(Number.parseInt(stdout.trim(), 8) & 0o4000).toBe(0);
  });
});

describe("a terminal", () => {
  const python = `
import os, pty, signal, struct, fcntl, sys, termios, time
mode, argv = sys.argv[1], sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(argv[0], argv)
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
before = termios.tcgetattr(fd)
seen = b""
def until(word):
    global seen
    while word not in seen:
        seen += os.read(fd, 4096)
until(b"ready")
raw = termios.tcgetattr(fd)
print("raw" if not raw[3] & termios.ICANON and not raw[3] & termios.ISIG else "cooked")
if mode == "type":
    os.write(fd, b"hello\\x03\\x04")
    until(b"end")
elif mode == "detach":
    os.write(fd, b"abc\\x10\\x11")
else:
    os.kill(pid, getattr(signal, mode))
_, status = os.waitpid(pid, 0)
after = termios.tcgetattr(fd)
print("restored" if after[3] == before[3] and after[0] == before[0] else "left raw")
print(os.waitstatus_to_exitcode(status))
print(repr(seen.decode()))
`;
  const inTerminal = async (mode: string, ...args: string[]) => {
    const child = Bun.spawn(["python3", "-c", python, mode, ...fake.command(...args)], {
      env: fake.environment,
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    return { lines: stdout.split("\n"), stderr };
  };
  const hasPython = Bun.which("python3") !== null;

  test.skipIf(!hasPython)("every key goes to the process, and the terminal is put back", async () => {
    const script = "echo ready; head -c 7 | od -An -tx1; echo end; exit 5";
    const { lines, stderr } = await inTerminal("type", "run", "-it", "--", "sh", "-c", script);
    expect(stderr).toBe("");
    expect(lines.slice(0, 3)).toEqual(["raw", "restored", "5"]);
    expect(lines[3]).toContain("68 65 6c 6c 6f 03 04");
  });

  test.skipIf(!hasPython)("the detach keys leave the process", async () => {
    const { lines } = await inTerminal("detach", "run", "-it", "--", "sh", "-c", "echo ready; sleep 20");
    expect(lines.slice(0, 3)).toEqual(["raw", "restored", "0"]);
  });

  test.skipIf(!hasPython).each([
    ["SIGTERM", "143"],
    ["SIGHUP", "129"],
    ["SIGQUIT", "131"],
  ])("after %s the terminal is put back", async (signal, exitCode) => {
    const { lines } = await inTerminal(signal, "run", "-it", "--", "sh", "-c", "echo ready; exec sleep 20");
    expect(lines.slice(0, 3)).toEqual(["raw", "restored", exitCode]);
  });
});

describe("the daemon is started on demand", () => {
  test("two commands at once start one, and both succeed", async () => {
    await using other = new FakeInstallation();
    const results = await Promise.all([1, 2, 3, 4].map((n) => other.run(["run", "--", "echo", String(n)])));
    expect(results).toEqual([1, 2, 3, 4].map((n) => ({ stdout: `${n}\n`, stderr: "", exitCode: 0 })));
    expect(await other.daemons()).toHaveLength(1);
  });

  test("it lives on in a session of its own, and a killed one is started again", async () => {
    await using other = new FakeInstallation();
    await other.run(["run", "--", "true"]);
    const [pid = 0] = await other.daemons();
    const session = Number(readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ")[3]);
    expect(session).toBe(pid);
    process.kill(pid, "SIGKILL");
    expect(await other.run(["run", "--", "echo", "again"])).toEqual({ stdout: "again\n", stderr: "", exitCode: 0 });
    expect(await other.daemons()).toHaveLength(2);
  });

  test("its typed error comes through when it cannot start", async () => {
    await using other = new FakeInstallation();
    expect(await other.run(["run", "--", "true"], { env: { FAKE_START: "fail" } })).toEqual({
      stdout: "",
      stderr: "mayfly: Mayfly is not set up here\n  hint: mayfly setup\n",
      exitCode: 125,
    });
  });

  test("a crash at its start is reported with the end of its log", async () => {
    await using other = new FakeInstallation();
    const { stderr, exitCode } = await other.run(["run", "--json", "--", "true"], { env: { FAKE_START: "crash" } });
    expect(exitCode).toBe(125);
    expect(JSON.parse(stderr)).toMatchObject({
      code: "daemon_start_failed",
      details: { exitCode: 3, stderrTail: "the fake crashes\n", path: join(other.directory, "state/mayflyd.log") },
    });
  });

  test("not for an address that was given, nor for version", async () => {
    await using other = new FakeInstallation();
    expect(await other.run(["--host", `unix://${other.socketPath}`, "ps"])).toMatchObject({
      exitCode: 125,
      stderr: expect.stringContaining("there is no such socket"),
    });
    expect(await other.run(["version"])).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("not running") });
    expect(await other.daemons()).toEqual([]);
  });
});
