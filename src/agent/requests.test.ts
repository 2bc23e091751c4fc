import { describe, expect, test } from "bun:test";
import { connected, pack, rejection, settle, soon } from "../../tests/support/fake-peer.ts";
import { MayflyError } from "../contract/errors.ts";
import * as encode from "./requests.ts";
import { FrameType, PREAMBLE } from "./wire.ts";

const TO_END = 2n ** 64n - 1n;

describe("payloads", () => {
  test("EXEC", () => {
    const spec = {
      argv: ["sh", "-c", ""],
      env: ["PATH=/bin", "A="],
      cwd: "/tmp",
      uid: 1000,
      gid: 100,
      groups: [4, 5],
      umask: 0o77,
      terminal: { rows: 24, columns: 80 },
      stdin: true,
      killTree: true,
      first: true,
      init: true,
      outside: true,
      hook: true,
      capabilities: 0xa80425fbn,
      limits: [{ resource: 7, soft: 1024n, hard: encode.NO_LIMIT }],
    };
    const numbers = [
      [4, 127],
      [4, 1000],
      [4, 100],
      [4, 0o77],
      [2, 24],
      [2, 80],
      [2, 3],
      [2, 2],
      [2, 2],
      [2, 1],
      [8, 0xa80425fbn],
    ] as const;
    expect(encode.encodeExec(spec)).toEqual(
      pack(...numbers, "/tmp", "sh", "-c", "", "PATH=/bin", "A=", [4, 4], [4, 5], [4, 7], [8, 1024], [8, TO_END]),
    );
    const plain = [
      [4, 0],
      [4, 0],
      [4, 0],
      [4, 0o22],
      [2, 0],
      [2, 0],
      [2, 1],
      [2, 0],
      [2, 0],
      [2, 0],
      [8, TO_END],
    ] as const;
    expect(encode.encodeExec({ argv: ["true"] })).toEqual(pack(...plain, "/", "true"));
  });

  test("containers", () => {
    expect(encode.encodeContainer({ fstype: "erofs" })).toEqual(pack([4, 0], [8, 0], [8, 0], "erofs", [2, 0]));
    const spec = {
      fstype: "ext4",
      readOnly: true,
      scratch: true,
      upperBytes: 2 ** 32,
      shmBytes: 4096,
      mounts: [
        { kind: "tmpfs", target: "/t", sizeBytes: 5, mode: 0o700, noexec: true },
        { kind: "disk", target: "/d", disk: 2, fstype: "ext4", readOnly: true, nosuid: true, nodev: true },
        { kind: "directory", target: "/w" },
      ],
    } as const;
    expect(encode.encodeContainer(spec)).toEqual(
      pack(
        ...([[4, 3], [8, 2 ** 32], [8, 4096], "ext4", [2, 3]] as const),
        ...([[1, 1], [1, 0], [2, 8], [4, 0o700], [8, 5], "", "/t"] as const),
        ...([[1, 2], [1, 2], [2, 7], [4, 0], [8, 0], "ext4", "/d"] as const),
        ...([[1, 3], [1, 0], [2, 0], [4, 0], [8, 0], "", "/w"] as const),
      ),
    );
    expect(encode.encodeTeardown(true)).toEqual(pack([4, 1]));
    expect(() => encode.encodeContainer({ fstype: "erofs", mounts: [{ kind: "tmpfs", target: "t" }] })).toThrow(
      'the target "t" of a mount is not absolute',
    );
  });

  test("files", () => {
    expect(encode.encodeFileRead("/a", 1, undefined)).toEqual(pack([8, 1], [8, TO_END], [4, 0], "/a"));
    expect(encode.encodeFileWrite("/a", { append: true, exclusive: true })).toEqual(
      pack([4, 3], [4, 0o644], [4, 0], [4, 0], "/a"),
    );
    expect(encode.encodeFileStat("/a", true)).toEqual(pack([4, 1], "/a"));
    expect(encode.encodeFileList("/a", 7n)).toEqual(pack([8, 7], "/a"));
    expect(encode.encodeFileMkdir("/a", true, 0o700)).toEqual(pack([4, 1], [4, 0o700], "/a"));
    expect(encode.encodeFileRemove("/a", true, true)).toEqual(pack([4, 3], "/a"));
  });

  test("identity, limits", () => {
    const identity = {
      realtimeNs: 5n,
      entropy: new Uint8Array(64).fill(1),
      machineId: new Uint8Array(16).fill(2),
      mac: Uint8Array.of(2, 0, 0, 0, 0, 9),
      hostname: "vm-1",
    };
    expect(encode.encodeIdentity(identity)).toEqual(
      pack([8, 5], identity.entropy, identity.machineId, identity.mac, [2, 0], "vm-1"),
    );
    expect(encode.encodeLimits({ memoryBytes: 2 ** 27, cpuMillis: 500 })).toEqual(
      pack([8, 2 ** 27], [8, 0], [4, 500], [4, 0]),
    );
  });

  const invalid: Record<string, () => unknown> = {
    "no argv": () => encode.encodeExec({ argv: [] }),
    "an empty command": () => encode.encodeExec({ argv: [""] }),
    "NUL in an argument": () => encode.encodeExec({ argv: ["a", "b\0"] }),
    "an environment entry without a name": () => encode.encodeExec({ argv: ["a"], env: ["=x"] }),
    "an environment entry without a value": () => encode.encodeExec({ argv: ["a"], env: ["PATH"] }),
    "a negative uid": () => encode.encodeExec({ argv: ["a"], uid: -1 }),
    "a terminal of 70000 rows": () => encode.encodeExec({ argv: ["a"], terminal: { rows: 70_000, columns: 1 } }),
    "too long a command line": () => encode.encodeExec({ argv: ["a", "x".repeat(65_000), "y".repeat(1000)] }),
    "an argument of 64 KiB": () => encode.encodeExec({ argv: ["a", "x".repeat(65_536)] }),
    "too long a path": () => encode.encodeFileStat("/".repeat(4096), false),
    "an empty path": () => encode.encodeFileStat("", false),
    "NUL in a path": () => encode.encodeFileRemove("/a\0", false, false),
    "signal 0": () => encode.encodeSignal(0, false),
    "signal 65": () => encode.encodeSignal(65, true),
    "an empty hostname": () => encode.encodeIdentity({ ...identityOf(64), hostname: "" }),
    "too long a hostname": () => encode.encodeIdentity({ ...identityOf(64), hostname: "x".repeat(65) }),
    "too little entropy": () => encode.encodeIdentity(identityOf(63)),
  };
  for (const [name, act] of Object.entries(invalid)) {
    test(`${name} is an invalid argument`, () => {
      expect(act).toThrow(MayflyError);
      expect(act).toThrow(/^Cannot /);
    });
  }
});

function identityOf(entropyBytes: number) {
  return { realtimeNs: 0n, entropy: new Uint8Array(entropyBytes), machineId: new Uint8Array(16), hostname: "a" };
}

describe("requests", () => {
  test("a payload with the preamble in it is never sent", async () => {
    const { peer, client } = await connected();
    expect((await rejection(client.ping(soon(), PREAMBLE))).code).toBe("invalid_argument");
    expect((await rejection(client.ping(soon(), new Uint8Array(1025)))).code).toBe("invalid_argument");
    await settle();
    expect(peer.frames.length).toBe(1);
  });

  test("results are decoded", async () => {
    const { peer, client } = await connected();
    const done = Promise.all([
      client.stats(soon()),
      client.time(9n, soon()),
      client.trim(2 ** 30, soon()),
      client.stat("/l", soon(), { noFollow: true }),
      client.ping(soon(), Buffer.from("abc")),
    ]);
    await settle();
    const answer = (type: number, result: Uint8Array) => peer.reply(peer.frame(type).stream, 0, result);
    answer(FrameType.stats, pack([8, 1], [8, 2], [8, 3], [8, 4], [8, 5], [4, 6], [4, 1500], [8, 7e6], [8, 8e6]));
    answer(FrameType.time, pack([8, 10n ** 18n], [8, 77]));
    answer(FrameType.trim, pack([8, 4096]));
    answer(
      FrameType.fileStat,
      pack([4, 0o120777], [4, 1], [4, 2], [4, 3], [8, 4], [8, TO_END], [8, -5n], [8, 0], "to"),
    );
    answer(FrameType.ping, Buffer.from("abc"));
    const [stats, time, trimmed, stat, pong] = await done;
    expect(stats).toEqual({
      memoryTotalBytes: 1,
      memoryFreeBytes: 2,
      memoryAvailableBytes: 3,
      workloadMemoryBytes: 4,
      workloadCpuUs: 5,
      workloadPids: 6,
      load1: 1.5,
      uptimeMs: 7,
      idleMs: 8,
    });
    expect(time).toEqual({ realtimeNs: 10n ** 18n, monotonicNs: 77n });
    expect(trimmed).toBe(4096);
    expect(stat).toEqual({
      ...{ mode: 0o120777, uid: 1, gid: 2, nlink: 3, sizeBytes: 4, inode: TO_END, mtimeNs: -5n, rdev: 0n },
      target: "to",
    });
    expect(Buffer.from(pong).toString()).toBe("abc");
  });

  test("a directory is listed page by page", async () => {
    const { peer, client } = await connected();
    const stat = pack([4, 0o100644], [4, 0], [4, 0], [4, 1], [8, 0], [8, 0], [8, 0], [8, 0], "");
    const pages = [pack([8, 5], stat, "a", stat, "b"), pack([8, 0], stat, "c")];
    peer.onFrame = ({ stream }) => peer.reply(stream, 0, pages.shift());
    const names: string[] = [];
    for await (const entry of client.list("/tmp", soon())) names.push(entry.name);
    expect(names).toEqual(["a", "b", "c"]);
    const cookies = peer.frames.filter(({ type }) => type === FrameType.fileList).map(({ payload }) => payload[0]);
    expect(cookies).toEqual([0, 5]);
  });

  test("an errno is named, with what was asked", async () => {
    const { peer, client } = await connected();
    const thaw = client.thaw(soon());
    const mkdir = client.mkdir("/a", soon());
    await settle();
    peer.reply(peer.frame(FrameType.thaw).stream, 1);
    peer.reply(peer.frame(FrameType.fileMkdir).stream, 17);
    expect((await rejection(thaw)).message).toBe("The guest agent cannot thaw the workload: EPERM");
    const error = await rejection(mkdir);
    expect([error.code, error.message]).toEqual([
      "file_operation_failed",
      "Cannot make the directory /a in the VM: EEXIST",
    ]);
  });
});
