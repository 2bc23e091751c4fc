/** Hooks with the real agent, run as a process of the host: files are those of its directory, commands run on the host. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rejection, soon } from "../../tests/support/fake-peer.ts";
import { ENV, HostAgent, hostAgentProgram } from "../../tests/support/host-agent.ts";
import type { AgentClient } from "../agent/client.ts";
import { Deadline } from "../sys/deadline.ts";
import { HOOK_DIRECTORY, listHooks, rehearseHooks, runHooks } from "./hooks.ts";

const here =
  hostAgentProgram === undefined ? "skipped: there is no musl-gcc to build the agent with" : "with the real agent";

describe.skipIf(hostAgentProgram === undefined)(here, () => {
  let agent: HostAgent;
  let client: AgentClient;
  let directory: string;
  beforeAll(async () => {
    agent = await HostAgent.start();
    client = agent.open();
    directory = join(agent.directory, HOOK_DIRECTORY);
    await client.ready;
  });
  afterAll(() => agent[Symbol.asyncDispose]());

  const put = (name: string, mode: number, text = "#!/bin/sh\n") => {
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, name), text);
    chmodSync(join(directory, name), mode);
  };
  const clear = () => rmSync(directory, { recursive: true, force: true });

  test("an image without the directory has none", async () => {
    clear();
    expect(await listHooks(client, soon())).toEqual([]);
    mkdirSync(directory, { recursive: true });
    expect(await listHooks(client, soon())).toEqual([]);
  });

  test("they are listed by name, links followed, hidden ones left out", async () => {
    clear();
    for (const name of ["20-b", "10-a", "100", "Zed"]) put(name, 0o755);
    put(".swp", 0o644);
    symlinkSync(join(HOOK_DIRECTORY, "10-a"), join(directory, "30-link"));
    expect(await listHooks(client, soon())).toEqual(
      ["10-a", "100", "20-b", "30-link", "Zed"].map((name) => `${HOOK_DIRECTORY}/${name}`),
    );
  });

  test("what would not run is refused", async () => {
    const refused = async (prepare: () => void) => {
      clear();
      prepare();
      const error = await rejection(listHooks(client, soon()));
      return `${error.code}: ${error.message}`;
    };
    expect(await refused(() => put("10-a", 0o644))).toMatch(/^image_invalid: .*10-a of the image is not executable/);
    expect(await refused(() => mkdirSync(join(directory, "dir"), { recursive: true }))).toContain("is no file");
    expect(
      await refused(() => {
        for (let i = 0; i < 70; i++) put(`hook${i}`, 0o755);
      }),
    ).toMatch(/^limit_reached: /);
  });

  describe("when they run", () => {
    const run = (commands: string[][], limitMs = 5_000, deadline = soon()) =>
      runHooks(client, { commands, process: { env: [...ENV, "A=1"] }, limitMs }, deadline);
    const sh = (script: string) => ["sh", "-c", script];

    test("one comes after the other, with the given environment", async () => {
      const file = join(agent.directory, "order");
      const note = (text: string) => sh(`sleep 0.1; echo ${text} $A >> ${file}`);
      await run([note("one"), note("two"), note("three")]);
      expect(await Bun.file(file).text()).toBe("one 1\ntwo 1\nthree 1\n");
    });

    test("the first that fails is the end, told with its code or signal and its last words", async () => {
      const file = join(agent.directory, "never");
      const failed = await rejection(run([sh("echo fine"), sh("echo last words >&2; exit 3"), ["touch", file]]));
      expect(failed.code).toBe("hook_failed");
      expect(failed.message).toContain("ended with 3; its output ends with: last words");
      expect(failed.details).toMatchObject({ path: "sh", outputTail: "last words\n" });
      expect(await Bun.file(file).exists()).toBe(false);
      expect((await rejection(run([sh("kill -9 $$")]))).message).toContain("killed by signal 9");
      expect((await rejection(run([["/no/such/hook"]]))).message).toContain("cannot run");
    });

    test("a rehearsal is marked, and its failure is told, not thrown", async () => {
      const rehearse = (script: string) =>
        rehearseHooks(client, { commands: [sh(script)], process: { env: ENV }, limitMs: 5_000 }, soon());
      expect(await rehearse('[ "$MAYFLY_REHEARSAL" = 1 ]')).toBeNull();
      expect(await rehearse("echo no; exit 2")).toContain("ended with 2; its output ends with: no");
      const bad = { commands: [sh("x\0y")], process: { env: ENV }, limitMs: 5_000 };
      expect((await rejection(rehearseHooks(client, bad, soon()))).code).toBe("invalid_argument");
    });

    test("one that takes too long is killed", async () => {
      const slow = await rejection(run([sh("echo waiting; exec sleep 100")], 200));
      expect([slow.code, slow.message]).toEqual(["hook_failed", expect.stringContaining("did not end within 200 ms")]);
      expect(slow.details["outputTail"]).toBe("waiting\n");
      // The deadline of the whole is another matter.
      const over = await rejection(run([sh("exec sleep 100")], 60_000, Deadline.after(200)));
      expect(over.code).toBe("deadline_exceeded");
    });
  });
});
