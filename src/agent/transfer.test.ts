import { describe, expect, test } from "bun:test";
import { connected, type FakePeer, pack, rejection, settle, soon } from "../../tests/support/fake-peer.ts";
import { Deadline } from "../sys/deadline.ts";
import { FrameType } from "./wire.ts";

const released = (peer: FakePeer) => peer.frames.filter((frame) => frame.type === FrameType.release).length;

describe("reading a file", () => {
  test("gives its size, its contents, and forgets the transfer", async () => {
    const { peer, client, closed } = await connected();
    const got: string[] = [];
    const read = client.readFile("/etc/hosts", (chunk) => void got.push(Buffer.from(chunk).toString()), soon(), {
      offset: 2,
      length: 6,
    });
    await settle();
    const { stream, payload } = peer.frame(FrameType.fileRead);
    expect(payload).toEqual(pack([8, 2], [8, 6], [4, 0], "/etc/hosts"));
    peer.reply(stream, 0, pack([8, 100], [4, 0o100644]));
    expect(await read.opened).toEqual({ sizeBytes: 100, mode: 0o100644 });
    peer.data(stream + 2, 0, "abc");
    peer.data(stream + 2, 3, "def");
    peer.offset(FrameType.eof, stream + 2, 6);
    peer.exit(stream / 4, { output: 6 });
    expect(await read.done).toBe(6);
    expect(got).toEqual(["abc", "def"]);
    await settle();
    expect(released(peer)).toBe(1);
    peer.reply(stream);
    expect(closed).toEqual([]);
  });

  test("a missing file is not found, with its path", async () => {
    const { peer, client } = await connected();
    const read = client.readFile("/no", () => undefined, soon());
    await settle();
    peer.reply(peer.frame(FrameType.fileRead).stream, 2);
    const error = await rejection(read.opened);
    expect([error.code, error.message]).toEqual(["file_not_found", "Cannot read /no in the VM: ENOENT"]);
    expect(await rejection(read.done)).toBe(error);
    await settle();
    expect(released(peer)).toBe(0);
  });

  test("an error in the middle fails the transfer", async () => {
    const { peer, client } = await connected();
    const read = client.readFile("/dev/bad", () => undefined, soon());
    await settle();
    const { stream } = peer.frame(FrameType.fileRead);
    peer.reply(stream, 0, pack([8, 10], [4, 0]));
    peer.exit(stream / 4, { errno: 5 });
    expect((await rejection(read.done)).message).toContain("Cannot read /dev/bad in the VM: EIO");
    await settle();
    expect(released(peer)).toBe(1);
  });

  test("a consumer that fails ends the transfer with its error", async () => {
    const { peer, client } = await connected();
    const consumer = () => Promise.reject(new Error("full"));
    const read = client.readFile("/x", consumer, soon());
    await settle();
    const { stream } = peer.frame(FrameType.fileRead);
    peer.reply(stream, 0, pack([8, 10], [4, 0]));
    peer.data(stream + 2, 0, "abc");
    await expect(read.done).rejects.toThrow("full");
    await settle();
    expect(released(peer)).toBe(1);
  });

  test("past its deadline it is released", async () => {
    const { peer, client } = await connected();
    const read = client.readFile("/x", () => undefined, Deadline.after(10));
    await settle();
    peer.reply(peer.frame(FrameType.fileRead).stream, 0, pack([8, 10], [4, 0]));
    expect((await rejection(read.done)).code).toBe("deadline_exceeded");
    await settle();
    expect(released(peer)).toBe(1);
  });
});

describe("writing a file", () => {
  test("sends its contents with the request, and ends when the agent has it in place", async () => {
    const { peer, client } = await connected();
    const file = client.writeFile("/tmp/a", { parents: true, mode: 0o600, uid: 1 }, soon());
    void file.write(Buffer.from("contents"));
    const done = file.end();
    await settle();
    const { stream, payload } = peer.frame(FrameType.fileWrite);
    expect(payload).toEqual(pack([4, 4], [4, 0o600], [4, 1], [4, 0], "/tmp/a"));
    expect(peer.writes.length).toBe(2);
    expect(peer.frame(FrameType.data).payload).toEqual(pack([8, 0], Buffer.from("contents")));
    expect(peer.frame(FrameType.eof).payload).toEqual(pack([8, 8]));
    peer.reply(stream);
    peer.offset(FrameType.ack, stream + 1, 8);
    peer.exit(stream / 4, {});
    await done;
    await settle();
    expect(released(peer)).toBe(1);
  });

  test("a full disk stops the writer and says so", async () => {
    const { peer, client } = await connected();
    const file = client.writeFile("/tmp/a", {}, soon());
    const write = file.write(new Uint8Array(1_000_000));
    await settle();
    const { stream } = peer.frame(FrameType.fileWrite);
    peer.reply(stream);
    peer.exit(stream / 4, { errno: 28 });
    expect(await write).toBe(false);
    const error = await rejection(file.end());
    expect([error.code, error.message]).toEqual(["file_operation_failed", "Cannot write /tmp/a in the VM: ENOSPC"]);
  });

  test("given up, it is released", async () => {
    const { peer, client } = await connected();
    const file = client.writeFile("/tmp/a", {}, soon());
    await settle();
    const { stream } = peer.frame(FrameType.fileWrite);
    peer.reply(stream);
    const aborted = file.abort();
    await settle();
    peer.reply(stream);
    await aborted;
    expect(released(peer)).toBe(1);
    expect(await file.write(Buffer.from("x")).catch(() => "refused")).toBe("refused");
  });
});
