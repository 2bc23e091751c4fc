/** The processes of a VM, as `top` shows them. */
import type { AgentClient } from "../agent/client.ts";
import { decodeProcesses, type SurveyedProcess, type SurveyedProcesses } from "../agent/survey.ts";
import type { VmProcess } from "../contract/inside.ts";
import type { Deadline } from "../sys/deadline.ts";
import { readText } from "./exec-spec.ts";
import { runSurvey } from "./survey.ts";

/** Device numbers of terminals, by Documentation/admin-guide/devices.txt of the kernel. */
const TTY_MAJOR = 4;
const CONSOLE = 0x501;
const PTS_MAJORS = { first: 136, last: 143 };

/**
 * The processes of a VM's workload in the order of their pids.
 * @throws `limit_reached`, `agent_request_failed`, `agent_protocol_violation`, `deadline_exceeded`.
 */
export async function listProcesses(agent: AgentClient, deadline: Deadline): Promise<VmProcess[]> {
  const surveyed = runSurvey(agent, "processes", deadline);
  // Names are a convenience: whatever a container has made of this file, its processes are listed.
  const passwd = readText(agent, "/etc/passwd", deadline).catch(() => "");
  const survey = decodeProcesses(await surveyed);
  return describeProcesses(survey, userNames(await passwd));
}

/** Processes with their users' names, as documents. */
export function describeProcesses(survey: SurveyedProcesses, names: ReadonlyMap<number, string>): VmProcess[] {
  const { realtimeMs, uptimeMs, processes } = survey;
  const described = processes.map((process): VmProcess => {
    const { pid, ppid, pgid, sid, uid, state, nice, threads, cpuMs, virtualBytes, residentBytes, name } = process;
    const elapsedMs = Math.max(0, uptimeMs - process.startedMs);
    return {
      ...{ pid, ppid, pgid, sid, uid, user: names.get(uid) ?? String(uid), state, tty: terminalName(process) },
      ...{ nice, threads, cpuMs, elapsedMs, startedAt: timeOf(realtimeMs - elapsedMs), virtualBytes, residentBytes },
      name,
      command: process.commandLine === "" ? [] : process.commandLine.split("\0"),
    };
  });
  return described.sort((a, b) => a.pid - b.pid);
}

/** User names by number, from a passwd(5) file; the first of a number counts. */
export function userNames(passwd: string): Map<number, string> {
  const names = new Map<number, string>();
  for (const line of passwd.split("\n")) {
    const [name = "", , uid = ""] = line.split(":");
    if (name !== "" && /^\d{1,10}$/.test(uid) && !names.has(Number(uid))) names.set(Number(uid), name);
  }
  return names;
}

/** A guest's clock may be set to anything. */
function timeOf(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? new Date(0).toISOString() : date.toISOString();
}

function terminalName({ terminal }: Pick<SurveyedProcess, "terminal">): string | null {
  if (terminal === 0) return null;
  const major = (terminal >>> 8) & 0xfff;
  const minor = (terminal & 0xff) | ((terminal >>> 12) & 0xfff00);
  if (major >= PTS_MAJORS.first && major <= PTS_MAJORS.last)
    return `pts/${(major - PTS_MAJORS.first) * 2 ** 20 + minor}`;
  if (terminal === CONSOLE) return "console";
  if (major === TTY_MAJOR) return minor < 64 ? `tty${minor}` : `ttyS${minor - 64}`;
  return `${major}:${minor}`;
}
