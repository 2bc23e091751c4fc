import { describe, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { parseVolume } from "./volumes.ts";

describe("--volume", () => {
  for (const [text, mount] of [
    ["data:/data", { source: { volume: "data" }, target: "/data" }],
    ["data:/data:ro", { source: { volume: "data" }, target: "/data", readOnly: true }],
    ["data:/data:rw", { source: { volume: "data" }, target: "/data" }],
    ["d:/var//lib/./x/:Z,ro", { source: { volume: "d" }, target: "/var/lib/x", readOnly: true }],
    ["/srv/www:/www:ro", { source: { directory: "/srv/www" }, target: "/www", readOnly: true }],
    ["./conf:/etc/app:ro", { source: { directory: "/home/me/conf" }, target: "/etc/app", readOnly: true }],
    ["conf/a:/etc/app:ro", { source: { directory: "/home/me/conf/a" }, target: "/etc/app", readOnly: true }],
    [".:/src:ro", { source: { directory: "/home/me" }, target: "/src", readOnly: true }],
    ["../you/:/src:ro,cached", { source: { directory: "/home/you" }, target: "/src", readOnly: true }],
  ] as const) {
    test(`${text} is taken`, () => expect(parseVolume(text, "/home/me")).toEqual(mount));
  }

  test("a path alone is a volume of its own, each time another", () => {
    const [one, two] = [parseVolume("/cache/"), parseVolume("/cache")].map(({ source, ...mount }) => {
      expect(mount).toEqual({ target: "/cache", anonymous: true });
      return "volume" in source ? source.volume : "";
    });
    expect(one).toMatch(/^[a-z2-7]{26}$/);
    expect(two).not.toBe(one);
  });

  for (const [text, why] of [
    ["", '"" is no absolute path in the VM'],
    ["data", '"data" is no absolute path in the VM'],
    ["./here", '"./here" is no absolute path in the VM'],
    ["data:", '"" is no absolute path in the VM'],
    ["data:var", '"var" is no absolute path in the VM'],
    [":/data", "the name or directory before ':' is missing"],
    ["data:/", "nothing can be mounted over /"],
    ["data:/.//", "nothing can be mounted over /"],
    ["/", "nothing can be mounted over /"],
    ["data:/a/../b", 'the path /a/../b in the VM has ".." in it'],
    ["data:/a:ro:x", "it has too many parts"],
    ["data:/a:readonly", '"readonly" is none of the options ro and rw'],
    ["data:/a:ro,rw", "it is both ro and rw"],
    ["data:/a:ro,,", '"" is none of the options'],
    ["~/x:/a:ro", "'~' was not expanded"],
    ["-data:/a", '"-data" is no volume\'s name'],
    ["da ta:/a", '"da ta" is no volume\'s name'],
    [`${"a".repeat(64)}:/a`, "is no volume's name"],
    ["/srv:/a", "a VM gets a directory of the host as a snapshot"],
    ["/srv:/a:rw", "a VM gets a directory of the host as a snapshot"],
  ] as const) {
    test(`${JSON.stringify(text)} is refused`, () => {
      const error = refusal(() => parseVolume(text, "/home/me"));
      expect(error.code).toBe("invalid_argument");
      expect(error.message).toContain(why);
      expect(error.details.remedy).toMatch(/NAME:\//);
    });
  }

  test("a writable directory is refused with what to do instead", () => {
    expect(refusal(() => parseVolume("./www:/www", "/srv")).details.remedy).toBe(
      "mount it read-only (-v /srv/www:/www:ro), or use a named volume (-v NAME:/www) and mayfly cp",
    );
  });
});

function refusal(act: () => unknown): MayflyError {
  try {
    act();
  } catch (error) {
    if (error instanceof MayflyError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}
