/** docs/API.md says what the code does. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CODES, KINDS } from "../contract/errors.ts";
import { STDIN_WINDOW_BYTES } from "../contract/stream.ts";
import { JSON_LIMIT_BYTES } from "./body.ts";
import { routes } from "./routes/table.ts";

const page = readFileSync(join(import.meta.dir, "../../docs/API.md"), "utf8");

/** Cells of the table rows below a header that begins with `first`, without back-ticks. */
function table(first: string): string[][] {
  const lines = page.split("\n");
  const start = lines.findIndex((line) => line.startsWith(`| ${first} |`));
  const length = lines.slice(start).findIndex((line) => !line.startsWith("|"));
  return lines.slice(start + 2, start + length).map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll("`", "")),
  );
}

test("every error code is there with its kind and a meaning, in the order of the code", () => {
  const rows = table("code");
  expect(rows.map(([code, kind]) => [code, kind])).toEqual(Object.entries(CODES));
  for (const [, , meaning] of rows) expect(meaning).toMatch(/\w{3}/);
});

test("every kind is there with its HTTP status and exit code", () => {
  const rows = table("kind").map(([kind, status, exitCode]) => [kind, Number(status), Number(exitCode)]);
  expect(rows).toEqual(Object.entries(KINDS).map(([kind, { httpStatus, exitCode }]) => [kind, httpStatus, exitCode]));
});

test("every route is there", () => {
  const rows = table("method").map(([method, path]) => `${method} ${path}`);
  expect(rows.toSorted()).toEqual(routes.map(({ method, path }) => `${method} ${path}`).toSorted());
});

test("limits that the page names", () => {
  expect([STDIN_WINDOW_BYTES, JSON_LIMIT_BYTES]).toEqual([1 << 20, 4 << 20]);
});
