/** The daemon's program over a fake engine, for tests of its life as a process. */
import { daemonOptions } from "../../src/daemon/config.ts";
import { runDaemon } from "../../src/daemon/main.ts";
import { FakeEngine } from "./fake-engine.ts";

const engine = new FakeEngine();
const options = { ...daemonOptions(process.argv.slice(2), process.env), closeLimitMs: 50 };
if (process.env["FAKE_CLOSE"] === "never") engine.close = () => new Promise(() => undefined);
await runDaemon(options, async () => engine).catch(() => process.exit(125));
process.exit(0);
