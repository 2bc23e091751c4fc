/** Runs host programs (apt-get, cpio, mkfs.erofs ...) to their end, with a deadline and typed errors. */

import { rmSync } from "node:fs";
import { MayflyError } from "../contract/errors.ts";

/** What {@link runTool} may be told besides the command. */
export interface ToolOptions {
  cwd?: string;
  /** Added to the daemon's own environment; `LC_ALL=C` is always set, so that messages are the same everywhere. */
  env?: Readonly<Record<string, string>>;
  /** Aborting it kills the program and whatever it started. */
  signal?: AbortSignal;
  /** Milliseconds until the program is killed; 10 minutes unless told. */
  deadlineMs?: number;
  /** Called with each full line as it comes, from both outputs. */
  onLine?: (line: string, source: "stdout" | "stderr") => void;
  /** Bytes for standard input; nothing (/dev/null) unless told. */
  input?: Uint8Array;
  /** A file that standard output goes to as it is; the result's is empty then. */
  outputPath?: string;
  /** The kernel kills the program when this process ends, however it ends: for what takes long. */
  endsWithUs?: boolean;
  /** An abort does not kill the program but waits for its end, which would otherwise leave something half done. */
  uninterruptible?: boolean;
}

/** What a program printed; it ended with code 0. */
export interface ToolResult {
  stdout: string;
  stderr: string;
}

/** Characters of each output that are kept. */
const KEPT_OUTPUT_CHARS = 4 * 1024 * 1024;
/** Characters of standard error that go into an error. */
const TAIL_CHARS = 2000;
const DEFAULT_DEADLINE_MS = 600_000;

/** Debian packages of the programs that Mayfly runs. */
const PACKAGES: Readonly<Record<string, string>> = {
  "apt-cache": "apt",
  "apt-get": "apt",
  buildah: "buildah",
  clang: "clang",
  cpio: "cpio",
  debugfs: "e2fsprogs",
  "dpkg-deb": "dpkg",
  "dump.erofs": "erofs-utils",
  e2fsck: "e2fsprogs",
  find: "findutils",
  "fsck.erofs": "erofs-utils",
  ldd: "libc-bin",
  make: "make",
  "mkfs.erofs": "erofs-utils",
  "mkfs.ext4": "e2fsprogs",
  "musl-gcc": "musl-tools",
  skopeo: "skopeo",
  setpriv: "util-linux",
  tar: "tar",
  unshare: "util-linux",
  xz: "xz-utils",
  zstd: "zstd",
};

/** The Debian package that has a program, or `undefined` if this table does not know. */
export function packageOf(program: string): string | undefined {
  return PACKAGES[program.slice(program.lastIndexOf("/") + 1)];
}

/** Absolute path of a program in `PATH` (with the system's own directories added), or `undefined`. */
export function findTool(program: string): string | undefined {
  return Bun.which(program, { PATH: toolPath() }) ?? undefined;
}

/** Environment of the programs that are run: this process' own, in English, with the system's directories in `PATH`. */
export function toolEnvironment(): Record<string, string | undefined> {
  return { ...process.env, PATH: toolPath(), LC_ALL: "C" };
}

/** `PATH` of the programs that are run: users often lack the sbin directories in theirs. */
function toolPath(): string {
  const own = process.env["PATH"] ?? "";
  const extra = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].filter(
    (d) => !own.split(":").includes(d),
  );
  return [own, ...extra].filter((part) => part !== "").join(":");
}

/**
 * Runs a program and returns what it printed. The program gets a session of its own, so that a Ctrl-C in the terminal
 * reaches it only through `signal`.
 *
 * @throws MayflyError `tool_missing` (`details.remedy` names the package), `tool_failed` (exit code, signal, end of its
 * standard error), `deadline_exceeded`, `cancelled`.
 */
export async function runTool(command: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  const program = command[0] ?? "";
  const found = findTool(program);
  if (found === undefined) throw missingTool(program);
  if (options.signal?.aborted) throw cancelled(command, undefined);
  // What was there before would show behind a shorter output.
  if (options.outputPath !== undefined) rmSync(options.outputPath, { force: true });
  const whole = [found, ...command.slice(1)];
  const child = Bun.spawn(options.endsWithUs ? endingWithUs(whole) : whole, {
    cwd: options.cwd ?? process.cwd(),
    env: { ...toolEnvironment(), ...options.env },
    // Bytes instead of a pipe would be in a file that stays open until garbage is collected.
    stdin: options.input === undefined ? "ignore" : "pipe",
    stdout: options.outputPath === undefined ? "pipe" : Bun.file(options.outputPath),
    stderr: "pipe",
    detached: true,
  });
  if (options.input !== undefined && typeof child.stdin === "object") feed(child.stdin, options.input);
  let ended: "deadline" | "cancelled" | undefined;
  const stop = (why: "deadline" | "cancelled") => {
    ended ??= why;
    killGroup(child.pid);
  };
  const deadlineMs = options.deadlineMs ?? DEFAULT_DEADLINE_MS;
  const timer = setTimeout(() => stop("deadline"), deadlineMs);
  const onAbort = () => {
    if (!options.uninterruptible) stop("cancelled");
  };
  options.signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const [stdout, stderr] = await Promise.all([
      collect(child.stdout instanceof ReadableStream ? child.stdout : undefined, (line) =>
        options.onLine?.(line, "stdout"),
      ),
      collect(child.stderr, (line) => options.onLine?.(line, "stderr")),
      child.exited,
    ]);
    if (ended === "deadline") throw timedOut(command, deadlineMs, stderr);
    if (ended === "cancelled" || options.signal?.aborted) throw cancelled(command, stderr);
    if (child.exitCode !== 0) throw failed(command, child.exitCode, child.signalCode, stderr || stdout);
    return { stdout, stderr };
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", onAbort);
  }
}

/** Writes all of its standard input. A program that ends before it has read it says more than that it has not. */
function feed(stdin: Bun.FileSink, bytes: Uint8Array): void {
  const write = async () => {
    await stdin.write(bytes);
    await stdin.end();
  };
  write().catch(() => undefined);
}

/**
 * A command that the kernel kills when this process ends. Should it have ended before the kernel was told, the command is not begun.
 */
export function endingWithUs(command: readonly string[]): string[] {
  const script = '[ "$PPID" = "$0" ] && exec "$@"';
  return ["setpriv", "--pdeathsig", "KILL", "/bin/sh", "-c", script, String(process.pid), ...command];
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}

/** Reads an output to its end, hands on full lines, and keeps its last {@link KEPT_OUTPUT_CHARS} characters. */
async function collect(
  stream: ReadableStream<Uint8Array> | undefined,
  onLine: (line: string) => void,
): Promise<string> {
  if (stream === undefined) return "";
  const decoder = new TextDecoder();
  let kept = "";
  let rest = "";
  for await (const chunk of stream) {
    const text = decoder.decode(chunk, { stream: true });
    kept = (kept + text).slice(-KEPT_OUTPUT_CHARS);
    const lines = (rest + text).split(/[\r\n]/);
    rest = (lines.pop() ?? "").slice(-KEPT_OUTPUT_CHARS);
    for (const line of lines) onLine(line);
  }
  if (rest !== "") onLine(rest);
  return kept;
}

/** The error for a program that is not installed; its remedy names the package. */
export function missingTool(program: string): MayflyError {
  const owner = packageOf(program);
  const remedy = owner === undefined ? undefined : `apt-get install -y ${owner}`;
  const hint = remedy === undefined ? "" : `; install it with: ${remedy}`;
  return new MayflyError("tool_missing", `Cannot run ${program}: it is not installed${hint}`, {
    details: remedy === undefined ? { path: program } : { path: program, remedy },
  });
}

function failed(
  command: readonly string[],
  exitCode: number | null,
  signal: NodeJS.Signals | number | null,
  output: string,
): MayflyError {
  const stderrTail = output.trimEnd().slice(-TAIL_CHARS);
  const how = signal === null ? `ended with code ${exitCode}` : `was killed by ${signal}`;
  const last = stderrTail.split("\n").pop() ?? "";
  return new MayflyError("tool_failed", `${describe(command)} ${how}${last === "" ? "" : `: ${last}`}`, {
    details: { stderrTail, ...(signal === null ? { exitCode: exitCode ?? -1 } : { signal: String(signal) }) },
  });
}

function timedOut(command: readonly string[], deadlineMs: number, stderr: string): MayflyError {
  return new MayflyError("deadline_exceeded", `${describe(command)} did not end within ${deadlineMs} ms`, {
    details: { stderrTail: stderr.trimEnd().slice(-TAIL_CHARS) },
  });
}

function cancelled(command: readonly string[], stderr: string | undefined): MayflyError {
  return new MayflyError("cancelled", `${describe(command)} was interrupted`, {
    details: stderr === undefined ? {} : { stderrTail: stderr.trimEnd().slice(-TAIL_CHARS) },
  });
}

function describe(command: readonly string[]): string {
  const text = command.join(" ");
  return text.length <= 160 ? text : `${text.slice(0, 157)}...`;
}
