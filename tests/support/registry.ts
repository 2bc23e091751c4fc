/** For tests: Debian's docker-registry on a free port of the loopback address, with storage of its own. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findTool, runTool } from "../../src/sys/tool.ts";

/** Programs without which there is nothing to test. */
export const missingRegistryTools = ["docker-registry", "skopeo"].filter((tool) => findTool(tool) === undefined);

/** What a registry is started with. */
export interface RegistryOptions {
  /** A new directory. */
  directory: string;
  /** User and password that it wants. */
  credentials?: { username: string; password: string };
  /** Speaks TLS with a certificate that `certDir` has the authority of. */
  tls?: boolean;
}

/** A running registry. */
export interface TestRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  host: string;
  /** With TLS: `ca.crt` is in it. */
  certDir: string;
  /** What it was asked for: method and path of each request. */
  requests(): string[];
  /** Copies an image into it, documents as they are. @param source as skopeo names it. */
  push(source: string, name: string): Promise<void>;
  /** Sends a document or blob as it is. @returns the answer's status. */
  put(path: string, body: string | Uint8Array, mediaType: string): Promise<number>;
}

/** Starts a registry and waits until it answers. */
export async function startRegistry({ directory, credentials, tls = false }: RegistryOptions): Promise<TestRegistry> {
  mkdirSync(directory, { recursive: true });
  const port = freePort();
  const host = `127.0.0.1:${port}`;
  const http: Record<string, unknown> = { addr: host, secret: "mayfly" };
  if (tls) http["tls"] = await certificates(directory);
  const auth = credentials === undefined ? {} : { auth: { htpasswd: await passwords(directory, credentials) } };
  const config = {
    ...{ version: 0.1, log: { level: "info", formatter: "json", accesslog: { disabled: true } } },
    ...{
      storage: { filesystem: { rootdirectory: join(directory, "storage") }, delete: { enabled: true } },
      http,
      ...auth,
    },
  };
  // Its reader of YAML takes JSON.
  writeFileSync(join(directory, "config.yml"), JSON.stringify(config));
  const program = findTool("docker-registry");
  if (program === undefined) throw new Error("there is no docker-registry");
  const child = Bun.spawn(["setpriv", "--pdeathsig", "KILL", program, "serve", join(directory, "config.yml")], {
    ...{ stdin: "ignore", stdout: "ignore", stderr: "pipe" },
  });
  const lines: string[] = [];
  const ready = Promise.withResolvers<void>();
  void follow(child.stderr, (line) => {
    lines.push(line);
    if (line.includes("listening on")) ready.resolve();
  }).then(() => ready.reject(new Error(`the registry ended: ${lines.slice(-5).join("\n")}`)));
  await ready.promise;
  const scheme = tls ? "https" : "http";
  const basic = credentials === undefined ? [] : [`${credentials.username}:${credentials.password}`];
  return {
    ...{ host, certDir: join(directory, "certs") },
    requests: () =>
      lines.flatMap(
        (line) => /"http.request.method":"(\w+)".*"http.request.uri":"([^"]+)"/.exec(line)?.slice(1, 3).join(" ") ?? [],
      ),
    async push(source, name) {
      const creds = basic.map((text) => `--dest-creds=${text}`);
      const target = `docker://${host}/${name}`;
      await runTool([
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        ...creds,
        source,
        target,
      ]);
    },
    async put(path, body, mediaType) {
      const headers: Record<string, string> = { "content-type": mediaType };
      const [given] = basic;
      if (given !== undefined) headers["authorization"] = `Basic ${btoa(given)}`;
      const init = { method: "PUT", headers, body: typeof body === "string" ? body : new Uint8Array(body) };
      const response = await fetch(`${scheme}://${host}${path}`, { ...init, tls: { rejectUnauthorized: false } });
      return response.status;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** A port that nobody listens on now. */
function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

async function passwords(directory: string, { username, password }: { username: string; password: string }) {
  const path = join(directory, "htpasswd");
  const hash = await Bun.password.hash(password, { algorithm: "bcrypt", cost: 4 });
  writeFileSync(path, `${username}:${hash}\n`);
  return { realm: "mayfly", path };
}

async function certificates(directory: string): Promise<{ certificate: string; key: string }> {
  mkdirSync(join(directory, "certs"));
  const [certificate, key] = [join(directory, "certs/ca.crt"), join(directory, "tls.key")];
  await runTool([
    ...["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"],
    ...["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
  ]);
  return { certificate, key };
}

async function follow(stream: ReadableStream<Uint8Array>, onLine: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  }
}
