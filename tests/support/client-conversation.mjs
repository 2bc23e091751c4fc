/**
 * A program that uses the library, the same on Bun and Node: `MODULE SOCKET URL TOKEN`. Prints one JSON document with all
 * that it has seen.
 */
const [, , modulePath, socketPath] = process.argv;
const { connect, MayflyError } = await import(modulePath);

const seen = {};
const text = (bytes) => new TextDecoder().decode(bytes);
const failure = async (act) => {
  try {
    await act();
    return "nothing was thrown";
  } catch (error) {
    const { code, kind, message, details } = error;
    return { isMayflyError: error instanceof MayflyError, code, kind, message, details };
  }
};

const mayfly = await connect({ socketPath });
seen.version = (await mayfly.system.version()).api;

// A process: output from both streams, input, exit.
const greeter = await mayfly.vms.run({
  command: ["sh", "-c", "read name; echo hello $name; echo oops >&2; exit 3"],
  stdin: true,
});
seen.vmId = /^vm_/.test(greeter.vm.id);
await greeter.stdin.write("you\n");
greeter.stdin.end();
seen.greeter = await greeter.collect();

// Far more than any buffer, to a reader that is slow at first; and input under back-pressure.
const echo = await mayfly.vms.run({ command: ["cat"], stdin: true });
const size = 12_000_000;
const source = new Uint8Array(size).map((_, index) => (index * 31 + (index >> 8)) & 255);
const writing = echo.stdin.write(source).then(() => echo.stdin.end());
let at = 0;
let equal = true;
await new Promise((resolve) => setTimeout(resolve, 200));
for await (const { bytes } of echo.output) {
  for (let i = 0; i < bytes.length; i += 997) equal &&= bytes[i] === source[at + i];
  at += bytes.length;
}
await writing;
seen.echo = { equal, size: at, exit: await echo.exited };

// Signals, exec, attach, detach.
const sleeper = await mayfly.vms.run({
  command: ["sh", "-c", "trap 'echo caught; exit 9' TERM; echo up; while :; do sleep 0.05; done"],
  name: "sleeper",
});
const output = sleeper.output[Symbol.asyncIterator]();
seen.up = text((await output.next()).value.bytes);
const beside = await mayfly.vms.exec("sleeper", { command: ["echo", "beside"], env: { A: "b" } });
seen.exec = await beside.collect();
sleeper.signal(15);
seen.caught = text((await output.next()).value.bytes);
seen.signalled = await sleeper.exited;

const result = await mayfly.vms.execToEnd("sleeper", { command: ["echo", "to the end"] });
seen.execToEnd = { ...result, stdout: atob(result.stdout) };

// Records.
seen.names = (await mayfly.vms.list()).map(({ name }) => name);
seen.inspected = (await mayfly.vms.get("sleeper")).command[0];
seen.killed = (await mayfly.vms.kill("sleeper", 9)).exitSignal;
seen.stopped = (await mayfly.vms.stop("sleeper", 5)).state;
seen.stats = (await mayfly.vms.stats("sleeper")).name;
seen.console = await mayfly.vms.console("sleeper");

// Files, streamed in and out.
await mayfly.files.write("sleeper", "/data/a b?&", "content é", { mode: 0o600, parents: true });
seen.file = await (await mayfly.files.read("sleeper", "/data/a b?&")).text();
async function* pieces() {
  for (let i = 0; i < 40; i++) yield new Uint8Array(65_536).fill(i);
}
await mayfly.files.write("sleeper", "/data/large", pieces());
const large = await mayfly.files.read("sleeper", "/data/large");
seen.large = { stat: large.stat.size, bytes: (await large.bytes()).length };
seen.listed = (await mayfly.files.list("sleeper", "/data")).map(({ name }) => name);
await mayfly.files.mkdir("sleeper", "/data/dir", { parents: true });
await mayfly.files.remove("sleeper", "/data/large");
seen.gone = await failure(() => mayfly.files.read("sleeper", "/data/large"));

// Logs that follow until the loop is left.
const followed = [];
for await (const { name, bytes } of mayfly.vms.logs("sleeper", { follow: true })) {
  followed.push([name, text(bytes)]);
  if (followed.length === 2) break;
}
seen.logs = followed;

// Operations with progress.
const steps = [];
seen.template = (await mayfly.templates.build({}, { onProgress: (step) => steps.push(step) })).id;
seen.steps = steps.at(-1);
seen.image = (await mayfly.images.import({ name: "x", path: "/x" })).name;
seen.verified = (await mayfly.templates.verify(seen.template)).ok;

// Snapshots and forks.
const parent = await mayfly.vms.create({ name: "parent" });
const once = { idempotencyKey: "k" };
const forked = await mayfly.vms.fork("parent", { count: 2, namePrefix: "child" }, once);
seen.forkedOnce =
  (await mayfly.vms.fork("parent", { count: 2, namePrefix: "child" }, once)).vmIds[1] === forked.vmIds[1];
seen.origin = (await mayfly.vms.get("child-2")).origin.id === parent.id;
const kept = await mayfly.vms.checkpoint("parent", { name: "kept" });
seen.kept = [
  kept.kind,
  (await mayfly.snapshots.get("kept")).id === kept.id,
  (await mayfly.snapshots.verify("kept")).ok,
];
seen.pages = (await mayfly.snapshots.diff("kept", { from: "kept" })).pages;
seen.asleep = (await mayfly.vms.checkpoint("child-1", { stop: true })).kind;
seen.awake = (await mayfly.vms.resume("child-1")).state;
await mayfly.vms.stop("parent");
seen.restored = (await mayfly.snapshots.restore("kept")).id === parent.id;
const written = [];
const exported = await mayfly.snapshots.export("kept", { path: "/x" }, { onProgress: (step) => written.push(step) });
seen.exported = [exported.id === kept.id, written.at(-1)];
seen.imported = (await mayfly.snapshots.import({ path: "/x", name: "other" })).name;
seen.promoted = (await mayfly.snapshots.promote("kept")).promotedTo;
seen.tree = (await mayfly.snapshots.tree()).filter(({ kind }) => kind === "snapshot").map(({ name }) => name);
await mayfly.snapshots.remove("kept");
seen.pruned = (await mayfly.snapshots.prune({ all: true })).removed.length;
seen.snapshots = (await mayfly.snapshots.list()).length;

// Errors, as they were sent.
seen.errors = {
  vm: await failure(() => mayfly.vms.get("nobody")),
  stream: await failure(() => mayfly.vms.exec("nobody", { command: ["x"] })),
  command: await failure(async () => (await mayfly.vms.run({ command: ["nonsense"] })).exited),
  validation: await failure(() => mayfly.vms.create({ name: "not a name" })),
  snapshot: await failure(() => mayfly.snapshots.import({ path: "/bad" })),
  operation: await failure(() => mayfly.images.import({ name: "x", path: "/bad" })),
  unreachable: await failure(() => connect({ socketPath: `${socketPath}.none` })),
  url: await failure(() => connect({ url: "ftp://x" })),
};
const abort = new AbortController();
const waiting = failure(() => mayfly.vms.wait(greeter.vm.id, { signal: abort.signal }));
setTimeout(() => abort.abort(), 50);
seen.errors.cancelled = await waiting;

// Events: what happens from the moment that the stream is open.
const types = [];
const watching = (async () => {
  for await (const { type } of mayfly.events({ type: "test." })) {
    types.push(type);
    if (types.length === 2) return;
  }
})();
await watching;
seen.events = types;

await mayfly.close();
console.log(JSON.stringify(seen, undefined, 1));
