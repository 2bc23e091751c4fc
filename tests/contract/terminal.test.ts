/** Terminals in a clone. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

describeVms("a terminal", () => {
  let vms: TestEngine;
  let vm: string;

  beforeAll(async () => {
    vms = await TestEngine.open();
    vm = (await vms.start()).id;
    await vms.exec(vm, ["true"]);
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => expect(await vms.leftBehind()).toEqual(NOTHING_LEFT));

  const open = async (script: string, size = { rows: 24, columns: 80 }) => {
    const output = new Output();
    const request = { command: ["sh", "-c", script], stdin: true, terminal: size };
    return { output, process: await vms.engine.exec(vm, request, output, soon()) };
  };

  test("is one, of the size that was asked for", async () => {
    const { output, process } = await open("tty; stty size; echo $TERM; test -t 0 -a -t 1 -a -t 2 && echo all", {
      rows: 33,
      columns: 111,
    });
    expect(await process.exited).toEqual({ exitCode: 0, signal: 0 });
    expect(output.stdout.replaceAll("\r", "")).toMatch(/^\/dev\/pts\/\d+\n33 111\nxterm\nall\n$/);
    expect(output.stderr).toBe("");
  });

  test("changes its size and tells the process", async () => {
    const script = "trap 'stty size' WINCH; echo ready; while read line; do echo got $line; done";
    const { output, process } = await open(script);
    await output.has("ready");
    process.resize(50, 132);
    // A signal just before the shell's read would wait for its end: a line ends it.
    await process.write(Buffer.from("\n"));
    await output.has("50 132");
    await process.write(Buffer.from("\x04"));
    await process.exited;
  });

  test("echoes, and turns Ctrl-C into a signal for the foreground", async () => {
    const { output, process } = await open("trap 'echo interrupted; exit 9' INT; echo ready; read line; echo no");
    await output.has("ready");
    await process.write(Buffer.from("abc"));
    await output.has("abc");
    // The line after it is for a shell that was not reading yet.
    await process.write(Buffer.from("\x03\n"));
    expect(await process.exited).toEqual({ exitCode: 9, signal: 0 });
    expect(output.stdout).toContain("^C");
    expect(output.stdout).toContain("interrupted");
  });

  test("is the controlling terminal of an interactive shell with job control", async () => {
    const output = new Output();
    const request = { command: ["sh", "-i"], stdin: true, terminal: { rows: 24, columns: 80 } };
    const process = await vms.engine.exec(vm, request, output, soon());
    await process.write(Buffer.from("sleep 100\n"));
    await output.has("sleep 100");
    await vms.shell(vm, "until pidof sleep >/dev/null; do sleep 0.02; done");
    await process.write(Buffer.from("\x1a"));
    await output.has("Stopped");
    await process.write(Buffer.from("kill -9 %1; wait\nexit 5\nexit 5\n"));
    expect(await process.exited).toEqual({ exitCode: 5, signal: 0 });
    expect(output.stdout).not.toContain("can't access tty");
  });

  test("that is closed reads as its end", async () => {
    const { output, process } = await open("cat; echo ended");
    await process.write(Buffer.from("line\n"));
    await output.has("line");
    process.closeInput();
    expect(await process.exited).toEqual({ exitCode: 0, signal: 0 });
    expect(output.stdout).toContain("ended");
  });

  test("belongs to a main process as well", async () => {
    const { stdout, vm: made } = await vms.run(["tty"], { terminal: { rows: 10, columns: 20 } });
    expect(made.terminal).toBe(true);
    expect(stdout).toMatch(/^\/dev\/pts\/\d+\r\n$/);
  });
});
