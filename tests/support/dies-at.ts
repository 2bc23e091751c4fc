/**
 * For tests, loaded before a daemon: it kills itself at the moment that the file `MAYFLY_TEST_DIES_AT` names, which it removes just before. While
 * that says `record`, moments are written into the file beside it, a line each.
 */
import { appendFileSync, readFileSync, unlinkSync } from "node:fs";
import { tellSteps } from "./steps.ts";

const path = process.env["MAYFLY_TEST_DIES_AT"] ?? "";

function wanted(): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

tellSteps((moment) => {
  const at = wanted();
  if (at === "record") appendFileSync(`${path}.told`, `${moment}\n`);
  if (at !== moment) return;
  unlinkSync(path);
  process.kill(process.pid, "SIGKILL");
});
