import { describe, expect, test } from "bun:test";
import { sampleApplication, sampleManifest } from "../../tests/support/application-part.ts";
import { sampleImage } from "../../tests/support/samples.ts";
import { MayflyError } from "../contract/errors.ts";
import type { ResolvedImage } from "./images.ts";
import { isMadeBy, rebuildCommand, recipeOf, requireFitting, sameRecipe } from "./recipes.ts";

const warmed = { ...sampleManifest, application: sampleApplication };

describe("the recipe that a request asks for", () => {
  test("is its own when it names an image", () => {
    const request = { name: "web", image: "web:2", force: true, pool: { warm: 1, blocked: 0 }, env: { A: "b" } };
    expect(recipeOf(request, sampleApplication)).toEqual({ image: "web:2", env: { A: "b" } });
  });

  test("has no device profile: an application has the devices that it needs", () => {
    expect(recipeOf({ profile: "exec" }, undefined)).toBeUndefined();
    expect(() => recipeOf({ image: "web", profile: "exec" }, undefined)).toThrow("with profile exec");
    expect(() => recipeOf({ name: "web", profile: "disk" }, sampleApplication)).toThrow("with profile disk");
  });

  test("is that of the template of its name otherwise, with what it says besides", () => {
    expect(recipeOf({ name: "web", force: true }, sampleApplication)).toEqual(sampleApplication.recipe);
    const more = recipeOf({ name: "web", memoryBytes: 1 << 30, warmUp: [] }, sampleApplication);
    expect(more).toEqual({ ...sampleApplication.recipe, memoryBytes: 1 << 30, warmUp: [] });
  });

  test("is none for a template of a size, which takes no other options", () => {
    expect(recipeOf({ name: "base", memoryBytes: 1 << 30, cpus: 2, force: true }, undefined)).toBeUndefined();
    expect(() => recipeOf({ name: "web", env: { A: "b" }, user: "x" }, undefined)).toThrow(
      "env, user: that needs an image",
    );
  });
});

test("recipes are the same whatever the order of their members", () => {
  const a = { image: "x", env: { A: "1", B: "2" }, ready: { kind: "http", port: 80, path: "/" } } as const;
  const b = { ready: { path: "/", port: 80, kind: "http" }, env: { B: "2", A: "1" }, image: "x" } as const;
  expect(sameRecipe(a, b)).toBe(true);
  expect(sameRecipe(a, { ...b, env: { A: "1", B: "3" } })).toBe(false);
  expect(sameRecipe({ image: "x", command: ["a", "b"] }, { image: "x", command: ["b", "a"] })).toBe(false);
});

test("a template is what a recipe makes of an image as long as both are the same", () => {
  const { digest, configDigest } = sampleApplication.image;
  const image: ResolvedImage = {
    image: { ...sampleImage, digest, configDigest },
    rootfs: { path: "/x", fstype: "erofs" },
    passwd: "",
    group: "",
  };
  const { recipe } = sampleApplication;
  expect(isMadeBy(sampleApplication, recipe, image)).toBe(true);
  expect(isMadeBy(sampleApplication, { ...recipe, warmUpTimes: 2 }, image)).toBe(false);
  for (const change of [{ digest: "sha256:0" }, { configDigest: "sha256:1" }])
    expect(isMadeBy(sampleApplication, recipe, { ...image, image: { ...image.image, ...change } })).toBe(false);
});

describe("a template that does not fit", () => {
  const other = { ...sampleManifest.fingerprint, qemuVersion: "11.0.0" };
  const thrown = (...args: Parameters<typeof requireFitting>) => {
    try {
      requireFitting(...args);
      return undefined;
    } catch (error) {
      return error instanceof MayflyError ? error : undefined;
    }
  };

  test("says what differs, and the command that builds it again", () => {
    expect(thrown(warmed, "web", sampleManifest.fingerprint)).toBeUndefined();
    const error = thrown(warmed, "web", other);
    expect(error?.code).toBe("template_incompatible");
    expect(error?.message).toContain("qemuVersion: 10.0.2 in the template, 11.0.0 here");
    expect(error?.message).toEndWith("Build it again: mayfly template build --force web");
    expect(error?.details["remedy"]).toBe("mayfly template build --force web");
  });

  test("has such a command if it has a name, or is one of a size", () => {
    expect(rebuildCommand(warmed, null)).toBeUndefined();
    expect(thrown(warmed, null, other)?.message).toContain(`template ${warmed.id}`);
    expect(rebuildCommand(sampleManifest, null)).toBe(
      "mayfly template build --force --memory 128m --cpus 1 --profile full",
    );
    expect(rebuildCommand(sampleManifest, "base")).toContain("--name base");
  });
});
