/** Operations that their caller gives up. */
import { expect, test } from "bun:test";
import { rejection } from "../../tests/support/fake-peer.ts";
import { sampleTemplate } from "../../tests/support/samples.ts";
import { servedDaemon } from "../../tests/support/served-daemon.ts";
import { MayflyError } from "../contract/errors.ts";
import { connect } from "./index.ts";

test("who has given one up goes on when what it had made is gone", async () => {
  await using daemon = await servedDaemon();
  await using mayfly = await connect({ socketPath: daemon.socketPath });
  let isGone = false;
  const [begun, abort] = [Promise.withResolvers<void>(), new AbortController()];
  daemon.engine.buildTemplate = async (_request, { deadline }) => {
    begun.resolve();
    await new Promise((resolve) => deadline.signal?.addEventListener("abort", resolve));
    await Bun.sleep(50);
    isGone = true;
    throw new MayflyError("cancelled", "Cancelled: the build");
  };
  const building = rejection(mayfly.templates.build({ name: sampleTemplate.name ?? "web" }, { signal: abort.signal }));
  await begun.promise;
  abort.abort();
  expect([(await building).code, isGone]).toEqual(["cancelled", true]);
});
