/** The client against the real agent, run as a process of the host. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { rejection, soon } from "../../tests/support/fake-peer.ts";
import { collector, ENV, HostAgent, hostAgentProgram, shell } from "../../tests/support/host-agent.ts";
import { Deadline } from "../sys/deadline.ts";
import type { AgentClient } from "./client.ts";
import { PREAMBLE } from "./wire.ts";

const here =
  hostAgentProgram === undefined ? "skipped: there is no musl-gcc to build the agent with" : "the real agent";
const sha256 = (bytes: Uint8Array) => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
const IDENTITY = { realtimeNs: 0n, entropy: new Uint8Array(64), machineId: new Uint8Array(16), hostname: "vm" };

describe.skipIf(hostAgentProgram === undefined)(here, () => {
  let agent: HostAgent;
  let client: AgentClient;
  beforeAll(async () => {
    agent = await HostAgent.start();
    client = agent.open();
    await client.ready;
  });
  afterAll(() => agent[Symbol.asyncDispose]());

  /** Waits until no process has the fifo open for writing, after one had. */
  const allGone = (fifo: string) => soon().race(Bun.file(fifo).text(), "the end of all writers");

  async function fifo(name: string): Promise<string> {
    const path = join(agent.directory, name);
    Bun.spawnSync(["mkfifo", path]);
    return path;
  }

  describe("commands", () => {
    test("give their output, their exit code and what they used", async () => {
      const { consumer, output, error } = collector();
      const script = "echo out $A; pwd; echo err >&2; exit 7";
      const spec = { argv: ["sh", "-c", script, "x"], env: [...ENV, "A=1"], cwd: "/tmp" };
      const process = client.exec(spec, consumer, soon());
      const status = await process.exited;
      expect(await process.pid).toBeGreaterThan(0);
      expect([output(), error()]).toEqual(["out 1\n/tmp\n", "err\n"]);
      expect(status).toMatchObject({ code: 7, signal: null, outputEnd: 11, errorEnd: 4 });
      expect(status.maxRssBytes).toBeGreaterThan(4096);
      await process.release(soon());
    });

    test("that cannot be started say why", async () => {
      const start = (argv: string[], cwd = "/") => client.exec({ argv, env: ENV, cwd }, () => undefined, soon());
      const codes = await Promise.all(
        [start(["no-such-command"]), start(["/etc/passwd"]), start(["/tmp"]), start(["true"], "/no/such")].map(
          async (process) => (await rejection(process.pid)).code,
        ),
      );
      expect(codes).toEqual([
        "command_not_found",
        "command_not_executable",
        "command_not_executable",
        "command_not_found",
      ]);
    });

    test("end by a signal", async () => {
      const process = client.exec({ argv: ["sleep", "100"], env: ENV }, () => undefined, soon());
      await process.signal(15, false, soon());
      expect(await process.exited).toMatchObject({ code: null, signal: 15 });
      await process.release(soon());
    });

    test("have a terminal that is resized", async () => {
      const { consumer, output } = collector();
      const spec = { argv: ["sh", "-c", "stty size; read x; stty size"], env: ENV, stdin: true };
      const process = client.exec({ ...spec, terminal: { rows: 24, columns: 80 } }, consumer, soon());
      await process.resize(50, 132, soon());
      await process.stdin.write(Buffer.from("\n"));
      expect((await process.exited).code).toBe(0);
      expect(output()).toContain("50 132\r\n");
      await process.release(soon());
    });

    test("that do not read their input end the writing", async () => {
      const process = client.exec({ argv: ["true"], env: ENV, stdin: true }, () => undefined, soon());
      const chunk = new Uint8Array(100_000);
      while (await process.stdin.write(chunk));
      expect((await process.exited).code).toBe(0);
      await process.release(soon());
    });

    test("100 MB through cat arrive unchanged", async () => {
      const block = crypto.getRandomValues(new Uint8Array(65_536));
      const bytes = Buffer.concat(Array.from({ length: 16 }, () => block));
      const sent = new Bun.CryptoHasher("sha256");
      const received = new Bun.CryptoHasher("sha256");
      const consumer = (_channel: number, chunk: Uint8Array) => void received.update(chunk);
      const process = client.exec({ argv: ["cat"], env: ENV, stdin: true }, consumer, Deadline.after(20_000));
      for (let left = 100_000_000, i = 0; left > 0; i++) {
        bytes.writeUInt32LE(i, ((i * 4099) % bytes.length) & ~3);
        const part = bytes.subarray(0, Math.min(left, bytes.length));
        sent.update(part);
        await process.stdin.write(part);
        left -= part.length;
      }
      process.stdin.end();
      expect((await process.exited).outputEnd).toBe(100_000_000);
      expect(received.digest("hex")).toBe(sent.digest("hex"));
      await process.release(soon());
    }, 20_000);

    test("may be fed the protocol's own preamble", async () => {
      const bytes = Buffer.concat(Array.from({ length: 500 }, (_, i) => [PREAMBLE, Buffer.alloc(i % 19, i)]).flat());
      const parts: Buffer[] = [];
      const consumer = (_channel: number, chunk: Uint8Array) => void parts.push(Buffer.from(chunk));
      const process = client.exec({ argv: ["cat"], env: ENV, stdin: true }, consumer, soon());
      await process.stdin.write(bytes);
      process.stdin.end();
      await process.exited;
      expect(sha256(Buffer.concat(parts))).toBe(sha256(bytes));
      await process.release(soon());
    });

    test("whose output nobody takes are held up, alone", async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      let bytes = 0;
      const consumer = (_channel: number, chunk: Uint8Array) => {
        bytes += chunk.length;
        return promise;
      };
      const process = client.exec({ argv: ["head", "-c", "3000000", "/dev/zero"], env: ENV }, consumer, soon());
      expect((await shell(client, "echo meanwhile")).output).toBe("meanwhile\n");
      expect(bytes).toBeLessThanOrEqual(262_144);
      resolve();
      expect((await process.exited).outputEnd).toBe(3_000_000);
      expect(bytes).toBe(3_000_000);
      await process.release(soon());
    });

    test("50 at once have each their own output and exit code", async () => {
      const all = Array.from({ length: 50 }, async (_, i) => {
        const { output, code } = await shell(client, `echo ${i}; exit ${i}`);
        expect([output, code]).toEqual([`${i}\n`, i]);
      });
      await Promise.all(all);
    });

    test("more than the agent's table holds are refused", async () => {
      const start = () => client.exec({ argv: ["cat"], env: ENV, stdin: true }, () => undefined, soon());
      const processes = Array.from({ length: 64 }, start);
      await Promise.all(processes.map((process) => process.pid));
      expect((await rejection(start().pid)).code).toBe("limit_reached");
      await Promise.all(processes.map((process) => process.release(soon())));
      expect((await shell(client, "echo again")).output).toBe("again\n");
    });

    test("are killed with their whole tree by a release", async () => {
      const path = await fifo("tree");
      const script = `exec 3>${path}; (sleep 100 & sleep 100) & echo started; wait`;
      const started = Promise.withResolvers<void>();
      const process = client.exec({ argv: ["sh", "-c", script], env: ENV }, () => started.resolve(), soon());
      const gone = allGone(path);
      await soon().race(started.promise, "the script's start");
      await process.release(soon());
      expect(await gone).toBe("");
    });
  });

  describe("files", () => {
    test("go in and out unchanged", async () => {
      const bytes = crypto.getRandomValues(new Uint8Array(65_536));
      const file = client.writeFile("/deep/er/file", { parents: true, mode: 0o640 }, soon());
      for (let i = 0; i < 50; i++) await file.write(bytes);
      await file.end();
      const path = join(agent.directory, "deep/er/file");
      expect([statSync(path).size, statSync(path).mode & 0o777]).toEqual([50 * 65_536, 0o640]);
      const parts: Buffer[] = [];
      const read = client.readFile("/deep/er/file", (chunk) => void parts.push(Buffer.from(chunk)), soon());
      expect((await read.opened).sizeBytes).toBe(50 * 65_536);
      expect(await read.done).toBe(50 * 65_536);
      expect(sha256(Buffer.concat(parts))).toBe(sha256(readFileSync(path)));
      const part: Buffer[] = [];
      const range = { offset: 65_530, length: 12 };
      await client.readFile("/deep/er/file", (chunk) => void part.push(Buffer.from(chunk)), soon(), range).done;
      expect(Buffer.concat(part)).toEqual(Buffer.concat([bytes.subarray(65_530), bytes.subarray(0, 6)]));
    });

    test("are appended to, kept from being replaced, and left alone by a transfer given up", async () => {
      const write = async (text: string, spec: { append?: boolean; exclusive?: boolean }) => {
        const file = client.writeFile("/note", spec, soon());
        await file.opened;
        await file.write(Buffer.from(text));
        await file.end();
      };
      await write("one", {});
      await write(" two", { append: true });
      expect((await rejection(write("three", { exclusive: true }))).message).toContain("EEXIST");
      const given = client.writeFile("/note", {}, soon());
      await given.opened;
      await given.write(Buffer.from("half"));
      await given.abort();
      expect(readFileSync(join(agent.directory, "note"), "utf8")).toBe("one two");
      expect(readdirSync(agent.directory).filter((name) => name.includes("note"))).toEqual(["note"]);
    });

    test("are described, listed and removed", async () => {
      await client.mkdir("/many/of", soon(), { parents: true, mode: 0o700 });
      const names = Array.from({ length: 1500 }, (_, i) => `a-rather-long-name-to-fill-pages-${i}`);
      await shell(client, `cd ${agent.directory}/many/of && touch ${names.join(" ")} && ln -s target link`);
      const listed: string[] = [];
      for await (const entry of client.list("/many/of", soon())) listed.push(entry.name);
      expect(listed.sort()).toEqual([...names, "link"].sort());
      const link = await client.stat("/many/of/link", soon(), { noFollow: true });
      expect([link.target, link.mode & 0o170000]).toEqual(["target", 0o120000]);
      expect((await client.stat("/many/of", soon())).mode).toBe(0o40700);
      expect((await rejection(client.remove("/many", soon()))).code).toBe("file_operation_failed");
      await client.remove("/many", soon(), { recursive: true });
      expect((await rejection(client.stat("/many", soon()))).code).toBe("file_not_found");
      await client.remove("/many", soon(), { missingOk: true });
      expect((await rejection(client.remove("/many", soon()))).message).toBe("Cannot remove /many in the VM: ENOENT");
    });
  });

  describe("the clone contract", () => {
    test("nothing runs between freeze and identity, and all of it goes out in one write", async () => {
      const frozen = client.freeze(soon());
      const refused = client.exec({ argv: ["true"], env: ENV }, () => undefined, soon());
      const early = client.thaw(soon());
      await frozen;
      expect((await rejection(refused.pid)).message).toContain("EBUSY");
      expect((await rejection(early)).message).toBe("The guest agent cannot thaw the workload: EPERM");
      client.close();
      client = agent.open();
      const done = [
        client.identity(IDENTITY, soon()),
        client.container({ fstype: "erofs" }, soon()),
        client.thaw(soon()),
      ];
      const { consumer, output } = collector();
      const process = client.exec({ argv: ["echo", "hi"], env: ENV }, consumer, soon());
      await Promise.all(done);
      await process.exited;
      expect(output()).toBe("hi\n");
      expect(await client.ready).toMatchObject({ identityPending: true, frozen: true });
    });

    test("a frozen VM goes on as it was on the connection that froze it, and on no other", async () => {
      await client.freeze(soon());
      await client.goOn(10n ** 18n * 2n, soon());
      const { consumer, output } = collector();
      await client.exec({ argv: ["echo", "on"], env: ENV }, consumer, soon()).exited;
      expect(output()).toBe("on\n");
      await client.freeze(soon());
      client.close();
      client = agent.open();
      const refused = await rejection(client.goOn(10n ** 18n * 2n, soon()));
      expect(refused.message).toBe("The guest agent cannot let the workload go on: EPERM");
      await Promise.all([client.identity(IDENTITY, soon()), client.thaw(soon())]);
    });

    test("clocks, statistics, limits, sync, trim and ping answer", async () => {
      expect((await client.time(0n, soon())).realtimeNs).toBeGreaterThan(10n ** 18n);
      expect((await client.stats(soon())).uptimeMs).toBeGreaterThan(0);
      await client.limits({ pids: 100, memoryBytes: 2 ** 30 }, soon());
      await client.sync(soon());
      expect(await client.trim(0, soon())).toBe(0);
      expect(await client.ping(soon(), Buffer.from("ping"))).toEqual(Uint8Array.from(Buffer.from("ping")));
    });
  });
});
