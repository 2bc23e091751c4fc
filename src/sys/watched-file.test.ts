import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { publishFile } from "./publish.ts";
import { watchFile } from "./watched-file.ts";

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "watched-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("a file that is replaced is told, its neighbours are not", async () => {
  const path = join(directory, "watched.json");
  await publishFile(path, "one");
  let told = 0;
  let wake = () => {};
  using watched = watchFile(path, () => {
    told += 1;
    wake();
  });
  expect(watched).toBeDefined();
  const next = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
    });
  const first = next();
  await publishFile(join(directory, "neighbour.json"), "other");
  await publishFile(path, "two");
  await first;
  const second = next();
  await publishFile(path, "three");
  await second;
  expect(told).toBe(2);
});

test("a directory that is not there cannot be watched", () => {
  expect(watchFile(join(directory, "none", "file"), () => {})).toBeUndefined();
});
