/** Errors of the daemon as the client throws them. */
import type { Problem as ReceivedProblem } from "../contract/api.ts";
import { CODES, type ErrorCode, type ErrorOptions, MayflyError } from "../contract/errors.ts";

type Received = Partial<(typeof ReceivedProblem)["_output"]>;

/** The error that a problem document (RFC 9457) stands for, with the same code, kind and details. */
export function errorOfProblem(problem: Received): MayflyError {
  const { code, detail, title, stage, vmId, details } = problem;
  const options: ErrorOptions = { details: details ?? {} };
  if (stage !== undefined) options.stage = stage;
  if (vmId !== undefined) options.vmId = vmId;
  return new MayflyError(
    isErrorCode(code) ? code : "internal",
    detail ?? title ?? "The daemon sent no reason",
    options,
  );
}

/**
 * The error of an answer that is none of 2xx.
 * @param body the answer's text: a problem document, or anything that something between us and the daemon has said.
 */
export function errorOfAnswer(status: number, body: string, what: string): MayflyError {
  try {
    const document: unknown = JSON.parse(body);
    if (isProblem(document)) return errorOfProblem(document);
  } catch {
    // It is no JSON, so not the daemon's.
  }
  const said = body.trim().slice(0, 200);
  return new MayflyError("internal", `Cannot ${what}: the answer was HTTP ${status}${said === "" ? "" : `: ${said}`}`);
}

function isProblem(value: unknown): value is Received {
  return typeof value === "object" && value !== null && "code" in value && isErrorCode(value.code);
}

function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(CODES, code);
}
