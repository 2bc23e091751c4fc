/** Recipes of applications' templates: what a request asks for, whether a template is that already, and what one that fits no more needs. */
import type { ApplicationRecipe, BuildTemplateRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Fingerprint } from "../contract/machine.ts";
import { fingerprintDifferences } from "../machine/fingerprint.ts";
import { shapeOf } from "../machine/profile.ts";
import type { ApplicationPart } from "../template/application.ts";
import type { TemplateManifest } from "../template/manifest.ts";
import type { ResolvedImage } from "./images.ts";

/**
 * The recipe that a request asks for: its own if it names an image; otherwise that of the template of its name, with what the request says
 * besides. @returns undefined for a request that is about no application.
 */
export function recipeOf(
  { name: _name, force: _force, pool: _pool, profile, image, ...options }: BuildTemplateRequest,
  existing: ApplicationPart | undefined,
): ApplicationRecipe | undefined {
  if (profile !== undefined && (image ?? existing) !== undefined) {
    const why = "that is for templates of a size; an application has the devices that it needs";
    throw new MayflyError(
      "invalid_argument",
      `Cannot build a template of an application with profile ${profile}: ${why}`,
    );
  }
  if (image !== undefined) return { image, ...options };
  if (existing !== undefined) return { ...existing.recipe, ...options };
  const { memoryBytes: _memory, cpus: _cpus, ...others } = options;
  const asked = Object.keys(others);
  if (asked.length === 0) return undefined;
  throw new MayflyError("invalid_argument", `Cannot build a template with ${asked.join(", ")}: that needs an image`);
}

/** Whether a template is what a recipe would make of an image now. */
export function isMadeBy(application: ApplicationPart, recipe: ApplicationRecipe, { image }: ResolvedImage): boolean {
  const { digest, configDigest } = application.image;
  return digest === image.digest && configDigest === image.configDigest && sameRecipe(application.recipe, recipe);
}

/** Whether two recipes say the same. */
export function sameRecipe(a: ApplicationRecipe, b: ApplicationRecipe): boolean {
  return canonical(a) === canonical(b);
}

/** JSON with the members of objects in the order of their names. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) =>
    typeof member === "object" && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  );
}

/** The command that builds a template again; an unnamed one has none. */
export function rebuildCommand(manifest: TemplateManifest, name: string | null): string | undefined {
  if (manifest.application === undefined) {
    const { memoryMiB, vcpus, profile } = shapeOf(manifest.fingerprint);
    const named = name === null ? "" : ` --name ${name}`;
    return `mayfly template build --force${named} --memory ${memoryMiB}m --cpus ${vcpus} --profile ${profile}`;
  }
  return name === null ? undefined : `mayfly template build --force ${name}`;
}

/** @throws `template_incompatible` with what differs, and the command that builds it again, when a template does not fit `host`. */
export function requireFitting(manifest: TemplateManifest, name: string | null, host: Fingerprint): void {
  const problems = fingerprintDifferences(manifest.fingerprint, host);
  if (problems.length === 0) return;
  const remedy = rebuildCommand(manifest, name);
  const hint = remedy === undefined ? "" : `. Build it again: ${remedy}`;
  throw new MayflyError(
    "template_incompatible",
    `Cannot start a clone of template ${name ?? manifest.id}: it was made for another machine (${problems.join("; ")})${hint}`,
    { details: { problems, ...(remedy === undefined ? {} : { remedy }) } },
  );
}

/** The error for a name that a template of the other kind has. */
export function nameTaken(name: string | undefined, { id, application }: TemplateManifest): MayflyError {
  const what = application === undefined ? "a size" : "an application";
  return new MayflyError("name_in_use", `Cannot name a template ${name}: ${id}, one of ${what}, has that name`);
}
