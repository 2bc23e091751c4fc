/** For tests: podman and Mayfly behind one interface, to run one image alike. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { podmanWays } from "../../../bench/podman-ways.ts";
import { runTool, toolEnvironment } from "../../../src/sys/tool.ts";
import { ROOT } from "../../architecture/sources.ts";
import type { TestDaemon } from "../engine-daemon.ts";
import { newDirectory } from "../engine-host.ts";

/**
 * Docker's default capabilities, which Mayfly has; podman leaves three of them out. As its default: what `--cap-add` adds, podman gives
 * to users other than root as ambient capabilities, which docker does not.
 */
const PODMAN_CONFIGURATION = `[containers]
default_capabilities = [
  "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP",
  "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
]
`;
const LIMIT_MS = 60_000;

/** What a command printed, and how it ended. */
export interface Ran {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Something that has docker's commands. */
export interface Runner extends AsyncDisposable {
  readonly name: string;
  /** `run --rm` with options, and words after the image. @param stdin standard input; none unless told. */
  run(options: readonly string[], words?: readonly string[], stdin?: string): Promise<Ran>;
  /** Starts a container or VM in the background. @returns a name that is gone with {@link remove}. */
  start(options: readonly string[], words?: readonly string[]): Promise<string>;
  /** Another command (`exec`, `kill`, `wait` ...), as it is. */
  call(...words: string[]): Promise<Ran>;
  remove(name: string): Promise<void>;
}

let started = 0;

abstract class Commands implements Runner {
  abstract readonly name: string;
  /** Words of the command line before its command. */
  protected abstract readonly program: readonly string[];
  protected abstract readonly flags: readonly string[];
  protected abstract readonly image: string;
  protected readonly env: Readonly<Record<string, string>> = {};

  run(options: readonly string[], words: readonly string[] = [], stdin?: string): Promise<Ran> {
    return this.#spawn(["run", "--rm", ...this.flags, ...options, this.image, ...words], stdin);
  }

  async start(options: readonly string[], words: readonly string[] = []): Promise<string> {
    started += 1;
    const name = `parity-${process.pid}-${started}`;
    const ran = await this.call("run", "-d", "--name", name, ...this.flags, ...options, this.image, ...words);
    if (ran.exitCode !== 0) throw new Error(`${this.name} run -d ended with ${ran.exitCode}: ${ran.stderr}`);
    return name;
  }

  call(...words: string[]): Promise<Ran> {
    return this.#spawn(words);
  }

  async remove(name: string): Promise<void> {
    await this.call("rm", "-f", name);
  }

  async #spawn(words: readonly string[], stdin?: string): Promise<Ran> {
    const child = Bun.spawn([...this.program, ...words], {
      env: { ...toolEnvironment(), FROM_CLIENT: "the client's own", ...this.env },
      stdin: stdin === undefined ? "ignore" : Buffer.from(stdin),
      stdout: "pipe",
      stderr: "pipe",
      timeout: LIMIT_MS,
    });
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { exitCode, stdout, stderr };
  }

  abstract [Symbol.asyncDispose](): Promise<void>;
}

/** Podman with the image in its store, and with what it needs on this machine to start at all. */
export class Podman extends Commands {
  readonly name = "podman";
  protected readonly flags: readonly string[];

  private constructor(
    protected readonly program: readonly string[],
    flags: readonly string[],
    protected readonly image: string,
    protected override readonly env: Readonly<Record<string, string>>,
    private readonly resources: AsyncDisposableStack,
  ) {
    super();
    // Of a read-only root podman leaves more writable than docker does.
    this.flags = ["--network", "none", "--read-only-tmpfs=false", ...flags];
  }

  /** @param layout directory of an OCI layout with an image `latest`. */
  static async open(layout: string): Promise<Podman> {
    await using resources = new AsyncDisposableStack();
    const { stdout } = await runTool(["podman", "pull", "--quiet", `oci:${layout}:latest`]);
    const image = stdout.trim();
    resources.defer(async () => {
      await runTool(["podman", "rmi", "--force", image]);
    });
    const env = { CONTAINERS_CONF: join(newDirectory("podman"), "containers.conf") };
    writeFileSync(env.CONTAINERS_CONF, PODMAN_CONFIGURATION);
    const failures: string[] = [];
    for (const { enter, flags } of await podmanWays(resources)) {
      const podman = new Podman([...enter, "podman"], flags, image, env, resources);
      const ran = await podman.run(["--entrypoint", "true"]);
      if (ran.exitCode === 0) return new Podman([...enter, "podman"], flags, image, env, resources.move());
      failures.push(ran.stderr.trim());
    }
    throw new Error(`podman starts nothing here: ${failures.join("; ")}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.resources.disposeAsync();
  }
}

/** The command line over a daemon of the test's own. */
export class Mayfly extends Commands {
  readonly name = "mayfly";
  protected readonly program = [process.execPath, "--no-env-file", join(ROOT, "src/cli/main.ts")];
  protected readonly flags = [];
  protected override readonly env: Readonly<Record<string, string>>;

  private constructor(
    daemon: TestDaemon,
    protected readonly image: string,
  ) {
    super();
    this.env = { MAYFLY_RUN_DIR: daemon.runDir, MAYFLY_STATE_DIR: daemon.stateDir, MAYFLY_HOST: "" };
  }

  /** @param layout directory of an OCI layout with an image `latest`. */
  static async open(daemon: TestDaemon, layout: string): Promise<Mayfly> {
    const [image] = await daemon.client.images.load({ path: layout });
    if (image === undefined) throw new Error("nothing was loaded");
    return new Mayfly(daemon, image.id);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
