/** Which images a Dockerfile needs, so that they can be had before it is built: all that is read of it here; the rest is buildah's. */

/** An instruction, its continued lines joined. */
interface Instruction {
  name: string;
  words: string[];
}

/** What is known of the variables that may stand in image names; null: declared without a value. */
type Variables = Map<string, string>;

const STAGE_NUMBER = /^\d+$/;
/** Set without being declared, for the platform that is built for. */
const PLATFORM_VARIABLES: readonly (readonly [string, string])[] = ["TARGET", "BUILD"].flatMap((prefix) => [
  [`${prefix}PLATFORM`, "linux/amd64"],
  [`${prefix}OS`, "linux"],
  [`${prefix}ARCH`, "amd64"],
  [`${prefix}VARIANT`, ""],
]);

/**
 * Names of images as `FROM`, `COPY --from`, `ADD --from` and `RUN --mount=...,from=` give them, variables replaced; neither `scratch` nor the
 * Dockerfile's own stages. With a target, of the stages up to it.
 */
export function imagesOf(dockerfile: string, buildArgs: Readonly<Record<string, string>>, target?: string): string[] {
  const images = new Set<string>();
  const stages = new Set<string>();
  const global: Variables = new Map(PLATFORM_VARIABLES);
  let variables = global;
  let reachedTarget = false;
  let number = -1;
  for (const { name, words } of instructionsOf(dockerfile)) {
    const end = words.findIndex((word) => !word.startsWith("--"));
    const flags = words.slice(0, end < 0 ? words.length : end);
    const rest = words.slice(flags.length);
    if (name === "FROM") {
      if (reachedTarget) break;
      number++;
      const base = expand(rest[0] ?? "", global);
      if (isImage(base, stages)) images.add(base);
      const stage = rest[1]?.toLowerCase() === "as" ? rest[2]?.toLowerCase() : undefined;
      if (stage !== undefined) stages.add(stage);
      reachedTarget = target !== undefined && (stage === target.toLowerCase() || String(number) === target);
      variables = new Map(global);
    } else if (name === "ARG") {
      for (const word of words) declare(word, variables, buildArgs);
    } else if (name === "ENV") {
      for (const word of words.filter((text) => text.includes("="))) declare(word, variables, {});
    } else {
      for (const from of flags.flatMap(sourcesOf).map((text) => expand(text, variables))) {
        if (isImage(from, stages) && !STAGE_NUMBER.test(from)) images.add(from);
      }
    }
  }
  return [...images];
}

function isImage(name: string, stages: ReadonlySet<string>): boolean {
  return name !== "" && name !== "scratch" && !stages.has(name.toLowerCase());
}

function sourcesOf(flag: string): string[] {
  const from = /^--from=(.*)$/.exec(flag)?.[1];
  if (from !== undefined) return [from];
  const mount = /^--mount=(.*)$/.exec(flag)?.[1];
  return (mount?.split(",") ?? []).flatMap((part) => /^from=(.*)$/.exec(part)?.[1] ?? []);
}

/** A build argument goes before the Dockerfile's default. */
function declare(word: string, variables: Variables, buildArgs: Readonly<Record<string, string>>): void {
  const equals = word.indexOf("=");
  const name = equals < 0 ? word : word.slice(0, equals);
  const given = Object.hasOwn(buildArgs, name) ? buildArgs[name] : undefined;
  if (given !== undefined) variables.set(name, given);
  else if (equals >= 0) variables.set(name, expand(word.slice(equals + 1), variables));
}

/** Replaces `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+instead}`, and takes quotes away. */
function expand(text: string, variables: Variables): string {
  const pattern = /\\(.)|["']|\$(\w+)|\$\{(\w+)(?::?([-+])([^{}]*))?\}/g;
  return text.replaceAll(pattern, (_all, escaped?: string, plain?: string, name?: string, sign?: string, word = "") => {
    if (escaped !== undefined) return escaped;
    const value = variables.get(plain ?? name ?? "") ?? "";
    if (sign === "-") return value === "" ? expand(word, variables) : value;
    if (sign === "+") return value === "" ? "" : expand(word, variables);
    return value;
  });
}

function* instructionsOf(dockerfile: string): Generator<Instruction> {
  const continuation = /^#\s*escape\s*=\s*(`|\\)\s*$/im.exec(directivesOf(dockerfile))?.[1] ?? "\\";
  let whole = "";
  for (const line of dockerfile.split(/\r?\n/)) {
    if (/^\s*#/.test(line) || (whole !== "" && line.trim() === "")) continue;
    const continued = line.trimEnd().endsWith(continuation);
    whole += continued ? `${line.trimEnd().slice(0, -1)} ` : line;
    if (continued) continue;
    const [name = "", ...words] = whole.trim().split(/\s+/);
    whole = "";
    if (name !== "") yield { name: name.toUpperCase(), words };
  }
}

/** Comments before everything else may change how the rest is read. */
function directivesOf(dockerfile: string): string {
  const lines = dockerfile.split(/\r?\n/);
  const end = lines.findIndex((line) => !/^#\s*\w+\s*=/.test(line));
  return lines.slice(0, end < 0 ? lines.length : end).join("\n");
}
