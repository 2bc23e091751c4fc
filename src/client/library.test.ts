/** The library as a program uses it, on Bun and on Node, against a daemon in a process of its own. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { FakeInstallation } from "../../tests/support/mayfly-process.ts";

const root = join(import.meta.dir, "../..");
const program = join(root, "tests/support/client-conversation.mjs");
const node = Bun.which("node");
mkdirSync(join(root, "build"), { recursive: true });
const built = mkdtempSync(join(root, "build/library-"));

beforeAll(async () => {
  // As package.json's script builds it; the modules of Node's transport are found from inside the checkout.
  const result = await Bun.build({
    entrypoints: [join(root, "src/client/index.ts")],
    target: "node",
    format: "esm",
    outdir: built,
    external: ["undici", "ws"],
  });
  expect(result.success).toBe(true);
});
afterAll(() => rmSync(built, { recursive: true, force: true }));

const problem = (code: string, kind: string, message: unknown) => ({ isMayflyError: true, code, kind, message });

const expected = {
  version: "v1",
  vmId: true,
  greeter: { exitCode: 3, signal: 0, stdout: "hello you\n", stderr: "oops\n" },
  echo: { equal: true, size: 12_000_000, exit: { exitCode: 0, signal: 0 } },
  up: "up\n",
  exec: { exitCode: 0, signal: 0, stdout: "beside\n", stderr: "" },
  caught: "caught\n",
  signalled: { exitCode: 9, signal: 0 },
  execToEnd: { exitCode: 0, signal: 0, stdout: "to the end\n", stderr: "", truncated: false },
  inspected: "sh",
  killed: 9,
  stopped: "exited",
  stats: "sleeper",
  console: "console of sleeper\n",
  file: "content é",
  large: { stat: 2_621_440, bytes: 2_621_440 },
  listed: ["a b?&", "large"],
  gone: problem("file_not_found", "not_found", "There is no file /data/large"),
  logs: [
    ["stdout", "first\n"],
    ["stderr", "second\n"],
  ],
  verified: true,
  events: ["test.one", "test.three"],
  template: expect.stringMatching(/^tpl_/),
  steps: "boot",
  image: "alpha",
  forkedOnce: true,
  origin: true,
  kept: ["checkpoint", true, true],
  pages: 3,
  asleep: "suspended",
  awake: "running",
  restored: true,
  exported: [true, "writing pages"],
  imported: "other",
  promoted: expect.stringMatching(/^tpl_/),
  tree: ["kept", "other"],
  pruned: 1,
  snapshots: 0,
  names: ["vm1", "vm2", "vm3", "sleeper"],
  errors: {
    vm: problem("vm_not_found", "not_found", "There is no VM nobody"),
    stream: problem("vm_not_found", "not_found", "There is no VM nobody"),
    command: problem("command_not_found", "not_found", "Cannot run nonsense: it is not found in PATH"),
    validation: {
      ...problem("invalid_argument", "invalid_argument", expect.stringContaining("name: a name has letters")),
      details: { problems: [expect.stringContaining("name: a name has letters")] },
    },
    snapshot: problem("snapshot_corrupt", "data_loss", "Cannot import /bad: its checksum differs"),
    operation: problem("image_invalid", "invalid_argument", "Cannot import /bad: it is no image"),
    unreachable: {
      ...problem("daemon_unreachable", "unavailable", expect.stringContaining("there is no such socket")),
      details: { systemCode: "ENOENT" },
    },
    url: problem("invalid_argument", "invalid_argument", 'Cannot connect to "ftp://x": it is no http or https URL'),
    cancelled: problem("cancelled", "cancelled", expect.stringContaining("Cancelled")),
  },
};

async function converse(command: readonly string[]) {
  await using fake = new FakeInstallation();
  await fake.run(["run", "--", "true"]);
  const child = Bun.spawn([...command, fake.socketPath], { stdout: "pipe", stderr: "pipe", env: fake.environment });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  expect({ stderr, exitCode: await child.exited }).toEqual({ stderr: "", exitCode: 0 });
  return JSON.parse(stdout);
}

describe("the library", () => {
  test("on Bun, from its source", async () => {
    expect(await converse([process.execPath, program, join(root, "src/client/index.ts")])).toMatchObject(expected);
  }, 60_000);

  test.skipIf(node === null)(
    "on Node, as it is built",
    async () => {
      expect(await converse([node ?? "", program, join(built, "index.js")])).toMatchObject(expected);
    },
    60_000,
  );
});
