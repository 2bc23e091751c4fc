import { expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { resolveRef } from "./refs.ts";

const all = [
  { id: "vm_aaaaaaaaaabcdefghijklmnopq", name: "web" },
  { id: "vm_aaaaaaaaaabczzzzzzzzzzzzzz", name: "db" },
  { id: "vm_aaaaaaaaaaqqqqqqqqqqqqqqqq", name: "bcd" },
  { id: "vm_aaaaaaaaaarrrrrrrrrrrrrrrr", name: null },
];
const find = (ref: string) => resolveRef(all, ref, "vm").id.slice(13, 16);
const code = (ref: string, what: "vm" | "template" | "image" = "vm") => {
  try {
    resolveRef(all, ref, what);
    return "none";
  } catch (error) {
    return error instanceof MayflyError ? error.code : String(error);
  }
};

test("a whole id or a name is found first, then a beginning of the id, of its bare form, or of its random part", () => {
  expect(find("vm_aaaaaaaaaabcdefghijklmnopq")).toBe("bcd");
  expect(find("web")).toBe("bcd");
  expect(find("bcd")).toBe("qqq");
  expect(find("bcde")).toBe("bcd");
  expect(find("vm_aaaaaaaaaar")).toBe("rrr");
  expect(find("aaaaaaaaaaq")).toBe("qqq");
  expect(find("r")).toBe("rrr");
});

test("what means nothing or several things is a typed error", () => {
  expect(code("nothing")).toBe("vm_not_found");
  expect(code("")).toBe("vm_not_found");
  expect(code("x", "template")).toBe("template_not_found");
  expect(code("x", "image")).toBe("image_not_found");
  expect(code("bc")).toBe("id_ambiguous");
  expect(code("vm_")).toBe("id_ambiguous");
  expect(() => resolveRef(all, "bc", "vm")).toThrow("vm_aaaaaaaaaabcdefghijklmnopq, vm_aaaaaaaaaabczzzzzzzzzzzzzz");
});
