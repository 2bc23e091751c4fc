/** `--volume` as docker writes it: `[NAME|DIRECTORY:]PATH[:OPTIONS]`. */
import { resolve } from "node:path";
import type { VolumeMount } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { NAME_PATTERN } from "../contract/ids.ts";
import { newId } from "../sys/ids.ts";

/** Options that say nothing in a VM: labels of SELinux, and how a Mac may cache. */
const WITHOUT_MEANING = ["z", "Z", "cached", "consistent", "delegated"];

/**
 * The mount that one value stands for. A path alone is a volume of its own, which goes with a VM that removes itself.
 * @param directory what relative paths of the host are relative to.
 * @throws MayflyError `invalid_argument`; its remedy says what would be right.
 */
export function parseVolume(text: string, directory: string = process.cwd()): VolumeMount {
  const [first = "", second, options = "", ...rest] = text.split(":");
  if (rest.length > 0) throw invalid(text, "it has too many parts; a path with ':' cannot be mounted");
  if (second === undefined) {
    return { source: { volume: newId("vol").slice("vol_".length) }, target: targetOf(text, first), anonymous: true };
  }
  const target = targetOf(text, second);
  const readOnly = isReadOnly(text, options);
  const source = sourceOf(text, first, directory);
  if ("directory" in source && !readOnly) throw writableDirectory(text, source.directory, target);
  return { source, target, ...(readOnly ? { readOnly } : {}) };
}

function sourceOf(text: string, source: string, directory: string): VolumeMount["source"] {
  if (source === "") throw invalid(text, "the name or directory before ':' is missing");
  if (source.startsWith("~")) throw invalid(text, "'~' was not expanded by your shell; write the whole path");
  if (source === "." || source === ".." || source.includes("/")) return { directory: resolve(directory, source) };
  if (new RegExp(NAME_PATTERN).test(source)) return { volume: source };
  const why = `${JSON.stringify(source)} is no volume's name (letters, digits, '_', '.', '-', at most 63)`;
  throw invalid(text, `${why}; a directory of the host has a '/' in it`);
}

function targetOf(text: string, target: string): string {
  if (!target.startsWith("/")) throw invalid(text, `${JSON.stringify(target)} is no absolute path in the VM`);
  const parts = target.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.length === 0) throw invalid(text, "nothing can be mounted over /");
  if (parts.includes("..")) throw invalid(text, `the path ${target} in the VM has ".." in it`);
  return `/${parts.join("/")}`;
}

function isReadOnly(text: string, options: string): boolean {
  const given = options === "" ? [] : options.split(",");
  const unknown = given.find((option) => option !== "ro" && option !== "rw" && !WITHOUT_MEANING.includes(option));
  if (unknown !== undefined) throw invalid(text, `${JSON.stringify(unknown)} is none of the options ro and rw`);
  if (given.includes("ro") && given.includes("rw")) throw invalid(text, "it is both ro and rw");
  return given.includes("ro");
}

/** There is no file system yet through which a VM could share a directory of the host and not its kernel's faults. */
function writableDirectory(text: string, directory: string, target: string): MayflyError {
  return new MayflyError(
    "invalid_argument",
    `--volume ${JSON.stringify(text)}: a VM gets a directory of the host as a snapshot, which it cannot write to; what it wrote could not come back`,
    {
      details: {
        remedy: `mount it read-only (-v ${directory}:${target}:ro), or use a named volume (-v NAME:${target}) and mayfly cp`,
      },
    },
  );
}

function invalid(text: string, why: string): MayflyError {
  return new MayflyError("invalid_argument", `--volume is ${JSON.stringify(text)}: ${why}`, {
    details: { remedy: "use NAME:/path[:ro], /directory:/path:ro or /path" },
  });
}
