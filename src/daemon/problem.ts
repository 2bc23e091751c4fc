/** Errors as the REST interface sends them: RFC 9457 problem documents. */
import { MayflyError, type Problem, problemDocument } from "../contract/errors.ts";
import { logError } from "./log.ts";

/** Any thrown value as a MayflyError: unknown ones become `internal` and are logged once, with their stack. */
export function asMayflyError(error: unknown): MayflyError {
  if (error instanceof MayflyError) return error;
  const message = error instanceof Error ? error.message : String(error);
  logError("unexpected error", error);
  return new MayflyError("internal", `Mayfly made a mistake: ${message}`, { cause: error });
}

/** The problem document of any thrown value. */
export function problemOf(thrown: unknown): Problem {
  return problemDocument(asMayflyError(thrown));
}

/** The problem as an answer. `status` replaces the kind's where HTTP has a more exact one (401, 405, 413). */
export function problemResponse(thrown: unknown, status?: number, headers: Record<string, string> = {}): Response {
  const problem = problemOf(thrown);
  return Response.json(status === undefined ? problem : { ...problem, status }, {
    status: status ?? problem.status,
    headers: { "content-type": "application/problem+json", ...headers },
  });
}
