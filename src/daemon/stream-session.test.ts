import { expect, test } from "bun:test";
import { servedDaemon } from "../../tests/support/served-daemon.ts";

test("run: started, output and exit come, in this order at the end", async () => {
  await using daemon = await servedDaemon();
  const stream = await daemon.connect("/v1/vms/run");
  stream.send({ type: "create", request: { command: ["echo", "hello"] } });
  expect(await stream.reply("exit")).toEqual({ type: "exit", exitCode: 0, signal: 0 });
  expect(stream.text(1)).toBe("hello\n");
  expect((await stream.reply("started")).vm.command).toEqual(["echo", "hello"]);
  expect(stream.replies.at(-1)?.type).toBe("exit");
  expect(await stream.closed).toBe(1000);
});
