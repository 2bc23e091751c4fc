/** The image of the containers: a static busybox, with which they sleep and answer. */
import { MayflyError } from "../../src/contract/errors.ts";
import { stateDirectory } from "../../src/sys/directories.ts";
import { findBusybox } from "../bundle.ts";
import { WORD } from "./crowd.ts";

/** What containers do. */
export const SLEEP = ["/bin/busybox", "sleep", "1000000"];
/** What they are asked. */
export const ECHO_WORD = ["/bin/busybox", "echo", WORD];

/** Path of the busybox. @throws MayflyError `setup_required`. */
export async function busyboxPath(): Promise<string> {
  const path = await findBusybox(stateDirectory());
  if (path === undefined) throw new MayflyError("setup_required", "Set-up's busybox is not there: mayfly setup");
  return path;
}

/** Checks what a container has printed. @throws MayflyError `internal`. */
export function checkAnswer(id: string, stdout: string): void {
  if (stdout.trim() !== WORD) throw new MayflyError("internal", `${id} gave ${JSON.stringify(stdout)} for ${WORD}`);
}
