/** One image, run by podman and by Mayfly: what its processes find, how they end, and what signals do, with every meant difference named. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { findTool } from "../../src/sys/tool.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";
import { type Difference, differencesOf, findingsOf, MeantDifferences } from "../support/parity/findings.ts";
import { probeImage } from "../support/parity/probe-image.ts";
import { Mayfly, Podman, type Runner } from "../support/parity/runners.ts";

const MEANT = new MeantDifferences([
  { what: "status Seccomp", why: "the kernel is the VM's own: there is no host's to keep a container from" },
  { what: "status SigBlk", given: /--init/, why: "podman's init leaves three signals of terminals blocked" },
  { what: "environment container", why: "podman's own mark" },
  { what: "environment TERM", why: "podman sets it without a terminal, too; Mayfly does as docker, with one only" },
  { what: "environment HOSTNAME", why: "each has its own name, unless --hostname says otherwise" },
  {
    what: "environment HOME",
    given: /4242/,
    why: "a user without an entry: podman takes the directory, Mayfly as docker /",
  },
  { what: "process arguments of pid 1", given: /--init/, why: "each has its own init" },
  { what: "process session", given: /--init/, why: "Mayfly's init has a session of its own" },
  { what: "network hostname", why: "each has its own name, unless --hostname says otherwise" },
  { what: "network /etc/hostname", why: "each has its own name, unless --hostname says otherwise" },
  { what: "network /etc/resolv.conf", why: "podman makes none without a network; a VM's names no resolver" },
  {
    what: "limits Max processes",
    why: "podman can set no higher limits on some hosts; Mayfly limits them by control group",
  },
  {
    what: "limits Max open files",
    varies: true,
    why: "podman can set no higher limits on some hosts; Mayfly has docker's",
  },
  { what: "limits Max pending signals", why: "comes of the memory that the kernel has" },
  { what: "limits Max locked memory", varies: true, why: "is the kernel's own, which comes of its version" },
  { what: "mounts /", why: "the layers of an overlay have other names" },
  { what: /^mounts \/sys\/fs\/cgroup/, why: "a VM has version 2 of control groups, whatever the host has" },
  { what: /^mounts \/(etc|run)\//, why: "files that podman mounts from the host; a VM has its own" },
  { what: /^mounts \/(proc|sys)\/./, why: "what is covered comes of what the kernel has; see `masked` and `writable`" },
  { what: "mounts /mnt/new", why: "docker mounts a tmpfs noexec, podman does not" },
  { what: "mounts /srv", given: /tmpfs/, why: "docker mounts a tmpfs noexec, podman does not" },
  { what: "mounts /dev/console", given: /-t/, why: "the terminal itself: its file system is the host's with podman" },
  { what: "mounts /dev/shm size", why: "Mayfly has docker's 64 MiB, podman 64000 KiB" },
  {
    what: "terminal size",
    given: /-t/,
    why: "without a terminal of the client's, podman's has no size and Mayfly's 24 x 80",
  },
  { what: "devices /dev/core", why: "leads to /proc/kcore, in which nothing can be read" },
  {
    what: "devices /dev/null",
    varies: true,
    why: "crun gives it to the user as standard input; runc and Mayfly do not",
  },
  { what: "masked /proc/interrupts", varies: true, why: "docker masks it since version 28, podman 4 does not" },
  { what: "masked /sys/dev/block", why: "podman masks it, docker does not; a VM's has its own disks only" },
  {
    what: "writable /new",
    given: /cap-drop ALL/,
    why: "podman takes write permission from /, Mayfly leaves it as the image has it",
  },
]);

describeVms("podman and Mayfly, on the same image", () => {
  let podman: Podman;
  let daemon: TestDaemon;
  let mayfly: Mayfly;

  beforeAll(async () => {
    if (findTool("podman") === undefined) throw new Error("podman is missing; `./check contract` installs it");
    const layout = await probeImage();
    podman = await Podman.open(layout);
    daemon = await TestDaemon.start();
    mayfly = await Mayfly.open(daemon, layout);
  }, 120_000);
  afterAll(async () => {
    await podman?.[Symbol.asyncDispose]();
    await daemon?.[Symbol.asyncDispose]();
  });

  /** Does the same with both. */
  const both = <T>(what: (runner: Runner) => Promise<T>): Promise<[T, T]> => Promise.all([what(podman), what(mayfly)]);

  /** What the probe finds differently, without what is meant. */
  async function unmeant(options: readonly string[], words?: readonly string[]): Promise<Difference[]> {
    const [one, other] = await both((runner) => runner.run(options, words));
    return MEANT.others(differencesOf(findingsOf(one), findingsOf(other)), options);
  }

  describe("a process finds the same", () => {
    for (const [name, options, words] of [
      ["as the image says", [], undefined],
      ["with arguments", [], ["one", "two three", ""]],
      ["with a terminal", ["-t"], undefined],
      ["as root", ["--user", "root"], undefined],
      ["as another user by name", ["--user", "bob"], undefined],
      ["as a user by number", ["--user", "1001"], undefined],
      ["as a user that has no entry", ["--user", "4242"], undefined],
      ["with a group by name", ["--user", "alice:readers"], undefined],
      ["with numbers only", ["--user", "4242:4343"], undefined],
      ["in another directory", ["--workdir", "/etc"], undefined],
      ["with a host name", ["--hostname", "probed"], undefined],
      [
        "with variables",
        ["--env", "GREETING=other", "-e", "ADDED=a=b c", "-e", "FROM_CLIENT", "-e", "EMPTIED="],
        undefined,
      ],
      ["with a read-only root", ["--read-only", "--user", "root"], undefined],
      ["with a tmpfs", ["--tmpfs", "/mnt/new:size=1m,mode=700"], undefined],
      ["with a tmpfs over its directory", ["--tmpfs", "/srv:size=1m,mode=1777", "--user", "root"], undefined],
      ["behind an init", ["--init"], undefined],
      ["behind an init, with a terminal", ["--init", "-t"], undefined],
      ["with a capability more", ["--user", "root", "--cap-add", "SYS_TIME"], undefined],
      ["with a capability less", ["--user", "root", "--cap-drop", "NET_RAW"], undefined],
      ["with no capability", ["--user", "root", "--cap-drop", "ALL"], undefined],
    ] as [string, string[], string[] | undefined][]) {
      test(name, async () => expect(await unmeant(options, words)).toEqual([]));
    }

    test("with variables of a file", async () => {
      const file = join(newDirectory("env"), "env");
      writeFileSync(
        file,
        '# a comment\nONE=1\nQUOTED="two words"\n\nGREETING=of the file\nFROM_CLIENT\nNOT_THERE\nSPACE = no\n'.replace(
          "SPACE = no\n",
          "",
        ),
      );
      expect(await unmeant(["--env-file", file, "--env", "ONE=of the option"])).toEqual([]);
    });

    test("in a directory that is made for it, as docker does (podman refuses)", async () => {
      const script = "pwd; stat -c '%F %a %u' .";
      const made = await mayfly.run(["--workdir", "/new/dir", "--entrypoint", "sh"], ["-c", script]);
      expect(made).toEqual({ exitCode: 0, stdout: "/new/dir\ndirectory 755 0\n", stderr: "" });
    });

    test("with another entrypoint, which has no arguments of the image", async () => {
      const [one, other] = await both((runner) => runner.run(["--entrypoint", "echo"], ["a", "b c"]));
      expect(other.stdout).toBe("a b c\n");
      expect(other.stdout).toBe(one.stdout);
      const [bare, same] = await both((runner) => runner.run(["--entrypoint", "echo"]));
      expect(same.stdout).toBe("\n");
      expect(same.stdout).toBe(bare.stdout);
    });

    test("on its standard input", async () => {
      const [one, other] = await both((runner) => runner.run(["-i", "--entrypoint", "cat"], [], "some input\n"));
      expect(other).toEqual({ exitCode: 0, stdout: "some input\n", stderr: "" });
      expect(other).toEqual(one);
      const [none, nothing] = await both((runner) => runner.run(["--entrypoint", "cat"], [], "some input\n"));
      expect(nothing).toEqual({ exitCode: 0, stdout: "", stderr: "" });
      expect(nothing).toEqual(none);
    });

    test("on standard error, apart from standard output", async () => {
      const [one, other] = await both((runner) => runner.run(["--entrypoint", "sh"], ["-c", "echo out; echo err >&2"]));
      expect(other).toEqual({ exitCode: 0, stdout: "out\n", stderr: "err\n" });
      expect(other).toEqual(one);
    });
  });

  describe("a command ends with the same code", () => {
    for (const [code, options, words, podmanCode] of [
      [0, ["--entrypoint", "true"], []],
      [7, ["--entrypoint", "sh"], ["-c", "exit 7"]],
      [143, ["--entrypoint", "sh"], ["-c", "sh -c 'kill -TERM $$'; exit $?"]],
      [126, ["--entrypoint", "/srv/not-executable"], []],
      [126, ["--entrypoint", "/srv"], []],
      [127, ["--entrypoint", "/no/such/program"], []],
      [127, ["--entrypoint", "no-such-program"], []],
      [125, ["--no-such-option"], []],
      [125, ["--user", "nobody-here"], [], 126],
      [125, ["--env-file", "/no/such/file"], []],
    ] as [number, string[], string[], number?][]) {
      test(`${code}: ${[...options, ...words].join(" ")}`, async () => {
        const [one, other] = await both((runner) => runner.run(options, words));
        // Where podman's code is not docker's, Mayfly has docker's.
        expect([other.exitCode, one.exitCode]).toEqual([code, podmanCode ?? code]);
        if (code >= 125 && code <= 127) expect(other.stderr).not.toBe("");
      });
    }
  });

  describe("signals do the same", () => {
    /** Starts one in the background, does something with it, and removes it. */
    const withStarted = (
      options: string[],
      words: string[],
      what: (runner: Runner, name: string) => Promise<unknown>,
    ) =>
      both(async (runner) => {
        const name = await runner.start(options, words);
        try {
          return await what(runner, name);
        } finally {
          await runner.remove(name);
        }
      });
    /** A shell that ends with code 7 at the signal; it has its trap once the file is there. */
    const trapping = (signal: string) => ["-c", `trap 'exit 7' ${signal}; : >/tmp/ready; while :; do sleep 0.05; done`];
    const untilReady = (runner: Runner, name: string) =>
      runner.call("exec", name, "sh", "-c", "until [ -e /tmp/ready ]; do sleep 0.05; done");
    const waited = async (runner: Runner, name: string) => Number((await runner.call("wait", name)).stdout.trim());

    test("SIGTERM without a handler does nothing to PID 1, SIGKILL ends it with 137", async () => {
      const ended = await withStarted(["--entrypoint", "sleep"], ["1000"], async (runner, name) => {
        const sent = await runner.call("kill", "--signal", "TERM", name);
        const after = await runner.call("exec", name, "cat", "/proc/1/comm");
        await runner.call("kill", "--signal", "KILL", name);
        return [sent.exitCode, after.stdout, await waited(runner, name)];
      });
      expect(ended[1]).toEqual([0, "sleep\n", 137]);
      expect(ended[1]).toEqual(ended[0]);
    });

    test("SIGTERM behind an init ends with 143", async () => {
      const ended = await withStarted(["--init", "--entrypoint", "sleep"], ["1000"], async (runner, name) => {
        // Once the program runs, the init has told it apart from itself.
        await runner.call("exec", name, "sh", "-c", "until grep -qs sleep /proc/[2-9]*/comm; do sleep 0.05; done");
        await runner.call("kill", "--signal", "TERM", name);
        return waited(runner, name);
      });
      expect(ended).toEqual([143, 143]);
    });

    test("stop sends SIGTERM, and the code is that of the handler", async () => {
      const ended = await withStarted(["--entrypoint", "sh"], trapping("TERM"), async (runner, name) => {
        await untilReady(runner, name);
        await runner.call("stop", name);
        return waited(runner, name);
      });
      expect(ended).toEqual([7, 7]);
    });

    test("stop sends the signal of --stop-signal", async () => {
      const options = ["--stop-signal", "SIGUSR1", "--entrypoint", "sh"];
      const ended = await withStarted(options, trapping("USR1"), async (runner, name) => {
        await untilReady(runner, name);
        await runner.call("stop", name);
        return waited(runner, name);
      });
      expect(ended).toEqual([7, 7]);
    });

    test("stop kills what does not end in time", async () => {
      const ended = await withStarted(["--entrypoint", "sleep"], ["1000"], async (runner, name) => {
        await runner.call("stop", "--time", "1", name);
        return waited(runner, name);
      });
      expect(ended).toEqual([137, 137]);
    });

    test("any other signal by name and number", async () => {
      for (const signal of ["HUP", "10"]) {
        const trap = signal === "10" ? "USR1" : signal;
        const ended = await withStarted(["--entrypoint", "sh"], trapping(trap), async (runner, name) => {
          await untilReady(runner, name);
          await runner.call("kill", "--signal", signal, name);
          return waited(runner, name);
        });
        expect(ended).toEqual([7, 7]);
      }
    });
  });

  test("no difference is called meant that there is not", () => {
    expect(MEANT.unused).toEqual([]);
  });
});
