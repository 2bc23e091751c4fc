/** The command line as a process of its own, with directories of its own, over a daemon that it starts. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** How a command is started. */
export interface CommandOptions {
  stdin?: "ignore" | "pipe" | Blob | Uint8Array;
  env?: Readonly<Record<string, string>>;
}

/** What a command printed, and how it ended. */
export interface CommandResult {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** A place with directories of its own, where the first command starts a daemon. */
export class Installation {
  /**
   * @param script the command line's entry.
   * @param directory holds `run` and `state`.
   */
  constructor(
    readonly script: string,
    readonly directory: string,
  ) {}

  get socketPath(): string {
    return join(this.directory, "run/mayfly.sock");
  }

  get environment(): Record<string, string> {
    return {
      ...(Bun.env as Record<string, string>),
      MAYFLY_RUN_DIR: join(this.directory, "run"),
      MAYFLY_STATE_DIR: join(this.directory, "state"),
    };
  }

  /** The words that start a command, for other programs to start. */
  command(...args: string[]): string[] {
    return [process.execPath, "--no-env-file", "--config=/dev/null", this.script, ...args];
  }

  spawn(args: readonly string[], options: CommandOptions = {}) {
    return Bun.spawn(this.command(...args), {
      env: { ...this.environment, ...options.env },
      stdin: options.stdin ?? "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
  }

  /** Runs a command to its end. */
  async run(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    const child = this.spawn(args, options);
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { stdout, stderr, exitCode };
  }

  /** Runs a line of shell in which `mayfly` is the command. */
  async shell(line: string): Promise<CommandResult> {
    const mayfly = this.command()
      .map((word) => `'${word}'`)
      .join(" ");
    const child = Bun.spawn(["bash", "-c", `mayfly() { ${mayfly} "$@"; }\n${line}`], {
      env: this.environment,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { stdout, stderr, exitCode };
  }
}

/** A place with a daemon over the fake engine. Dispose it at the end. */
export class FakeInstallation extends Installation implements AsyncDisposable {
  constructor() {
    super(join(import.meta.dir, "mayfly-on-fake.ts"), mkdtempSync(join(tmpdir(), "mayfly-cli-")));
  }

  override get environment(): Record<string, string> {
    return { ...super.environment, FAKE_PID_FILE: join(this.directory, "daemons") };
  }

  /** Process ids of the daemons that were started here, ended ones too. */
  async daemons(): Promise<number[]> {
    const text = await Bun.file(join(this.directory, "daemons"))
      .text()
      .catch(() => "");
    return text.split("\n").filter(Boolean).map(Number);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of await this.daemons()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended.
      }
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}
