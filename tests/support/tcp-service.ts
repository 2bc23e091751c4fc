/** For tests: a service with many habits that runs inside a guest (`tcp-service.c`), and how to speak to it. */
import { join } from "node:path";
import { runTool } from "../../src/sys/tool.ts";
import { TcpClient } from "./tcp-client.ts";

/** Its ports inside the guest, named after what they do; nobody listens on `nobody`. */
export const SERVICE = {
  ...{ http: 8080, echo: 9000, nobody: 9001, reset: 9002, endless: 9003, silent: 9004, six: 9005, lastWord: 9006 },
} as const;
export type ServicePort = keyof typeof SERVICE;

/** Where the program lies in a guest, and the script that starts it and returns once it listens on all ports. */
export const SERVICE_PATH = "/tmp/tcp-service";
export const START_SERVICE = `
mkfifo /tmp/listens
${SERVICE_PATH} </dev/null >/tmp/listens 2>&1 &
read line </tmp/listens && [ "$line" = ready ]`;

/** Compiles it. @param directory an empty one. @returns the program. */
export async function tcpService(directory: string): Promise<Uint8Array> {
  const program = join(directory, "tcp-service");
  const source = join(import.meta.dir, "tcp-service.c");
  await runTool([
    "musl-gcc",
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-Wall",
    "-Werror",
    "-static",
    "-s",
    "-o",
    program,
    source,
  ]);
  return Bun.file(program).bytes();
}

/** Asks a `http` port, which answers with the target. @throws when the connection ends before. */
export async function ask(client: TcpClient, target: string, last = false): Promise<string> {
  const before = client.receivedBytes;
  client.received.splice(0);
  await client.send(`GET ${target} HTTP/1.1\r\n${last ? "connection: close\r\n" : ""}\r\n`);
  await client.has(before + `HTTP/1.1 200 OK\r\ncontent-length: ${target.length}\r\n\r\n${target}`.length);
  return client.text.slice(-target.length);
}

/** One request on a connection of its own. */
export async function askOnce(port: number, target: string): Promise<string> {
  const client = await TcpClient.open(port);
  const body = await ask(client, target, true);
  await client.ended.promise;
  client.finish();
  return body;
}

/** Whether bytes of the `endless` port are the numbers from 0 on. */
export function areNumbers(bytes: Buffer): boolean {
  for (let at = 0; at + 4 <= bytes.length; at += 4) if (bytes.readUInt32LE(at) !== at / 4) return false;
  return true;
}
