import { expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { resolveUser } from "./users.ts";

const accounts = {
  passwd:
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:an app:/home/app:/bin/sh\n42:x:7:8::/odd:\nbad:x:nine:9::/:\n# app2:x:5:5\n",
  group: "root:x:0:\nwheel:x:10:root,app\naudio:x:29:app\nstaff:x:1001:app\n",
};

test.each([
  ["app", { uid: 1000, gid: 1001, groups: [1001, 10, 29], home: "/home/app" }],
  ["1000", { uid: 1000, gid: 1001, groups: [1001, 10, 29], home: "/home/app" }],
  ["app:audio", { uid: 1000, gid: 29, groups: [29], home: "/home/app" }],
  ["app:77", { uid: 1000, gid: 77, groups: [77], home: "/home/app" }],
  ["root", { uid: 0, gid: 0, groups: [0, 10], home: "/root" }],
  ["0:0", { uid: 0, gid: 0, groups: [0], home: "/root" }],
  ["555", { uid: 555, gid: 0, groups: [0], home: "/" }],
  // A name of digits goes before the number.
  ["42", { uid: 7, gid: 8, groups: [8], home: "/odd" }],
] as const)("%s", (user, resolved) => {
  expect(resolveUser(user, accounts)).toEqual({ ...resolved, groups: [...resolved.groups] });
});

test.each([
  ["nobody", "user"],
  ["bad", "user"],
  ["app2", "user"],
  ["", "user"],
  ["app:nogroup", "group"],
  ["4294967295", "user"],
])("%s is refused", (user, kind) => {
  expect(() => resolveUser(user, accounts)).toThrow(
    expect.objectContaining({ code: "user_not_found", message: expect.stringContaining(`as ${kind}`) }),
  );
});

test("an image without accounts knows numbers only", () => {
  const none = { passwd: "", group: "" };
  expect(resolveUser("5:6", none)).toEqual({ uid: 5, gid: 6, groups: [6], home: "/" });
  expect(() => resolveUser("root", none)).toThrow("/etc/passwd");
});

test("whatever an image's files hold, a user is resolved within the kernel's range or refused", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.string(), (user, passwd, group) => {
      try {
        const { uid, gid, groups } = resolveUser(user, { passwd, group });
        for (const id of [uid, gid, ...groups]) expect(Number.isInteger(id) && id >= 0 && id < 2 ** 32 - 1).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(MayflyError);
      }
    }),
  );
});
