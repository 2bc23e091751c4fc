/**
 * The sources of a program that runs for long as one file, without what it does not need: loaded from it, the daemon takes some megabytes
 * less than from hundreds of modules. Made where there is none for the sources as they are, and kept under their checksum.
 */
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { waitForLock } from "./lock.ts";
import { publishDirectory } from "./publish.ts";

const ROOT = join(import.meta.dir, "../..");
/** What may be in a program: TypeScript, and the C sources that set-up carries as text. */
const SOURCE_DIRECTORIES = ["src", "bench", "guest", "launcher"] as const;
const SOURCE = /(?<!\.test)\.ts$|\.[ch]$|\.list$|Makefile$/;
const PACKAGES = ["package.json", "package-lock.json"] as const;
/** Counts up when a program is made in another way. */
const FORMAT = 1;
const NAMES = { program: "program.js", checksum: "program.sha256" } as const;
const LOCK_LIMIT_MS = 20_000;
/** Programs of other sources stay that long: another checkout may use them in turns with this one. */
const KEPT_MS = 24 * 3600 * 1000;

/** What a program is made of and with. */
export interface BundleOptions {
  /** Root of the sources; default this program's own. */
  root?: string;
  /** Makes the text of the program. */
  build?: (entry: string, root: string) => Promise<string>;
}

/**
 * The path of a program of one file. It is whole: what is damaged is made again.
 * @param entry its first module, relative to the root of the sources.
 * @param directory where programs are kept; made if missing, its owner's only.
 * @returns undefined where it cannot be made: without sources, without room or right to write, after an error. Nothing is left then.
 */
export async function bundledProgram(
  entry: string,
  directory: string,
  { root = ROOT, build = buildProgram }: BundleOptions = {},
): Promise<string | undefined> {
  try {
    const place = join(directory, await checksumOfSources(entry, root));
    const path = join(place, NAMES.program);
    if (await isWhole(place)) return path;
    await mkdir(directory, { recursive: true, mode: 0o711 });
    await chmod(directory, 0o700);
    using _lock = await waitForLock(join(directory, "lock"), { deadlineMs: LOCK_LIMIT_MS });
    if (await isWhole(place)) return path;
    const text = await build(join(root, entry), root);
    await rm(place, { recursive: true, force: true });
    await publishDirectory(place, async (beside) => {
      await writeFile(join(beside, NAMES.program), text);
      await writeFile(join(beside, NAMES.checksum), checksum(text));
    });
    await removeOld(directory, place);
    return path;
  } catch {
    return undefined;
  }
}

/** Names stay, so that a stack in the log can be read. */
async function buildProgram(entry: string, root: string): Promise<string> {
  const { outputs } = await Bun.build({
    entrypoints: [entry],
    target: "bun",
    minify: { whitespace: true, syntax: true, identifiers: false },
    // Only src/sys asks where it lies.
    define: { "import.meta.dir": JSON.stringify(join(root, "src/sys")) },
  });
  const [output] = outputs;
  if (output === undefined || outputs.length !== 1) throw new Error(`${entry} gave ${outputs.length} files`);
  return output.text();
}

async function checksumOfSources(entry: string, root: string): Promise<string> {
  const listed = await Promise.all(
    SOURCE_DIRECTORIES.map(async (directory) => {
      const names = await readdir(join(root, directory), { recursive: true }).catch(() => []);
      return names.filter((name) => SOURCE.test(name)).map((name) => `${directory}/${name}`);
    }),
  );
  const hash = new Bun.CryptoHasher("sha256").update(JSON.stringify([FORMAT, Bun.revision, root, entry]));
  for (const name of [...PACKAGES, ...listed.flat().sort()]) {
    const bytes = await readFile(join(root, name)).catch((error: unknown) => {
      // An installed package has no package-lock.json; a source that is gone since it was listed will be missed by the build.
      if (PACKAGES.some((known) => known === name)) return Buffer.alloc(0);
      throw error;
    });
    hash.update(`\0${name}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest("hex");
}

async function isWhole(place: string): Promise<boolean> {
  const [text, expected] = await Promise.all(
    [NAMES.program, NAMES.checksum].map((name) => readFile(join(place, name)).catch(() => undefined)),
  );
  return text !== undefined && expected?.toString() === checksum(text);
}

function checksum(content: string | Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(content).digest("hex");
}

/** A program is read whole when it starts: one that runs does not miss its file. */
async function removeOld(directory: string, current: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const facts = await stat(path);
    if (path === current || !facts.isDirectory() || Date.now() - facts.mtimeMs < KEPT_MS) continue;
    await rm(path, { recursive: true, force: true });
  }
}
