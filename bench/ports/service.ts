/** The service that both guests run: a static program, compiled for the run. */
import { writeText } from "../../src/sys/paths.ts";
import { runTool } from "../../src/sys/tool.ts";
import source from "./server.c" with { type: "text" };

/** Its ports inside the guest. */
export const GUEST_PORTS = { http: 8080, bytes: 8081 } as const;

/** The same on the host, of one network. */
export type HostPorts = Readonly<Record<keyof typeof GUEST_PORTS, number>>;

/** Compiles it in an empty directory. @returns the program's path. @throws `tool_missing`, `tool_failed`. */
export async function compileService(directory: string, signal: AbortSignal): Promise<string> {
  const [program, text] = [`${directory}/server`, `${directory}/server.c`];
  await writeText(text, source);
  const flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-s"];
  await runTool(["musl-gcc", ...flags, "-o", program, text], { signal });
  return program;
}

/** The words that start it. */
export function serviceCommand(program: string): string[] {
  return [program, String(GUEST_PORTS.http), String(GUEST_PORTS.bytes)];
}
