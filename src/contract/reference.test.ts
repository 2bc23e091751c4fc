import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { familiarName, formatReference, isLoopback, parseReference, tryReference } from "./reference.ts";

const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}`;

describe("references", () => {
  test.each([
    ["debian", "docker.io/library/debian:latest"],
    ["debian:12", "docker.io/library/debian:12"],
    ["team/app", "docker.io/team/app:latest"],
    ["docker.io/debian", "docker.io/library/debian:latest"],
    ["index.docker.io/debian", "docker.io/library/debian:latest"],
    ["localhost/app", "localhost/app:latest"],
    ["localhost:5000/app:1", "localhost:5000/app:1"],
    ["[::1]:5000/a/b:x", "[::1]:5000/a/b:x"],
    ["example.com/a__b/c-d.e:V1_2", "example.com/a__b/c-d.e:V1_2"],
    ["Registry/app", "Registry/app:latest"],
    [`debian@${DIGEST}`, `docker.io/library/debian@${DIGEST}`],
    [`localhost:5000/app:1@${DIGEST}`, `localhost:5000/app:1@${DIGEST}`],
  ])("%s is %s", (text, whole) => {
    expect(formatReference(parseReference(text))).toBe(whole);
    expect(formatReference(parseReference(whole))).toBe(whole);
  });

  test.each([
    ["", "0 characters"],
    ["Debian", "capital letters"],
    ["a b", "repository"],
    ["-a", "repository"],
    ["a//b", "repository"],
    ["a/../b", "repository"],
    ["debian:", "tag"],
    ["debian:-x", "tag"],
    [`debian:${"x".repeat(129)}`, "tag"],
    ["debian@sha256:abc", "digest"],
    [`debian@sha512:${"0".repeat(128)}`, "digest"],
    ["exa_mple.com/a", "registry"],
    ["https://example.com/a", "registry"],
    ["0123456789abcdef".repeat(4), "id"],
    [`${"a".repeat(256)}`, "longer"],
    ["x".repeat(600), "600 characters"],
  ])("%j is none: %s", (text, message) => {
    expect(() => parseReference(text)).toThrow(message);
    expect(tryReference(text)).toBeUndefined();
  });

  const part = fc.stringMatching(/^[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8})?$/);
  const path = fc.array(part, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/"));
  const domain = fc.constantFrom(
    "localhost",
    "localhost:5000",
    "docker.io",
    "a-b.example.com",
    "127.0.0.1:1",
    "[fe80::1]:80",
  );
  const reference = fc
    .record({
      domain,
      path,
      tag: fc.option(fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}$/)),
      digest: fc.boolean(),
    })
    .map(({ tag, digest, ...name }) => ({
      ...name,
      ...(tag === null ? {} : { tag }),
      ...(digest ? { digest: DIGEST } : {}),
    }));

  test("what is written whole is read back, and completing it again changes nothing", () => {
    fc.assert(
      fc.property(reference, (given) => {
        const read = parseReference(formatReference(given));
        const isOfficial = given.domain === "docker.io" && !given.path.includes("/");
        expect(read.path).toBe(isOfficial ? `library/${given.path}` : given.path);
        expect(read.domain).toBe(given.domain);
        expect(read.tag).toBe(given.tag ?? (given.digest === undefined ? "latest" : undefined));
        expect(parseReference(formatReference(read))).toEqual(read);
        // The name that people see means the same.
        expect(parseReference(familiarName(formatReference(read)))).toEqual(read);
      }),
      { numRuns: 500 },
    );
  });

  test("any text is read or refused with a reason, and nothing else", () => {
    const odd = fc.string({ unit: fc.constantFrom(..."aA0.:/@_-[]\0\n é"), maxLength: 40 });
    fc.assert(
      fc.property(fc.oneof(odd, fc.string()), (text) => {
        const read = tryReference(text);
        if (read !== undefined)
          expect(formatReference(parseReference(formatReference(read)))).toBe(formatReference(read));
      }),
      { numRuns: 2000 },
    );
  });

  test("names are shown as people know them", () => {
    expect(familiarName("docker.io/library/debian:12")).toBe("debian:12");
    expect(familiarName("docker.io/team/app:latest")).toBe("team/app:latest");
    expect(familiarName("localhost:5000/app:1")).toBe("localhost:5000/app:1");
    expect(familiarName("docker.io/localhost/app:1")).toBe("docker.io/localhost/app:1");
    expect(familiarName("rootfs")).toBe("rootfs");
  });

  test.each([
    ["localhost", true],
    ["localhost:5000", true],
    ["127.0.0.1:80", true],
    ["127.1.2.3", true],
    ["[::1]:5000", true],
    ["localhost.example.com", false],
    ["127.0.0.1.example.com", false],
    ["10.0.0.1", false],
    ["docker.io", false],
  ])("%s is this machine: %p", (name, own) => {
    expect(isLoopback(name)).toBe(own);
  });
});
