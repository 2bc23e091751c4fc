import { afterAll, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import {
  type AboutImage,
  findProcessImage,
  type ImageFiles,
  makeProcessImage,
  pagesOverTemplate,
} from "./process-image.ts";
import { LoadedTemplate } from "./store.ts";

const root = mkdtempSync("/var/tmp/mayfly-process-image-");
afterAll(() => rmSync(root, { recursive: true, force: true }));

const FITS = { launcher: "/launcher", bootId: "this one" };
const ABOUT: AboutImage = {
  ...FITS,
  main: null,
  written: [
    [2, 1],
    [7, 3],
  ],
};
const nobody = () => false;
let directory: string;
let template: LoadedTemplate;

beforeEach(() => {
  directory = mkdtempSync(join(root, "template-"));
  const memoryPath = join(directory, "memory");
  writeFileSync(memoryPath, "template");
  template = Object.assign(Object.create(LoadedTemplate.prototype), { memoryPath });
});

async function fill({ image, memory }: ImageFiles): Promise<AboutImage> {
  writeSync(image, "process");
  writeSync(memory, "IMAGE", 0);
  return ABOUT;
}

const make = (about: Partial<AboutImage> = {}) =>
  makeProcessImage(template, directory, process.getgid?.() ?? 0, async (files) => ({
    ...(await fill(files)),
    ...about,
  }));
const imagesThere = () => readdirSync(directory).filter((name) => name !== "memory");

test("one that was made is found again, with a copy of the memory that was written over", async () => {
  const made = await make();
  expect(readFileSync(made.imagePath, "utf8")).toBe("process");
  expect(readFileSync(made.memoryPath, "utf8")).toBe("IMAGEate");
  expect(readFileSync(template.memoryPath, "utf8")).toBe("template");
  expect([made.imagePath, made.memoryPath].map((path) => statSync(path).mode & 0o777)).toEqual([0o400, 0o440]);
  expect(await findProcessImage(directory, FITS, nobody)).toMatchObject(made);
  expect(await pagesOverTemplate(made.memoryPath)).toEqual(ABOUT.written);
  expect(await pagesOverTemplate(template.memoryPath)).toEqual([]);
});

test("nothing is left of one whose making fails", async () => {
  const failing = makeProcessImage(template, directory, 0, () => Promise.reject(new Error("no")));
  expect(await failing.catch((error: Error) => error.message)).toBe("no");
  expect(imagesThere()).toEqual([]);
});

test.each([
  ["another launcher", { launcher: "/other" }],
  ["another boot", { bootId: "before" }],
])("one of %s is removed, unless its memory is in use", async (_, about) => {
  const made = await make(about);
  expect(await findProcessImage(directory, FITS, (path) => path === made.memoryPath)).toBeUndefined();
  expect(existsSync(made.memoryPath)).toBe(true);
  expect(await findProcessImage(directory, FITS, nobody)).toBeUndefined();
  expect(imagesThere()).toEqual([]);
});

test("of several that fit one stays; what was never finished or is damaged goes", async () => {
  await make();
  await make();
  const damaged = await make();
  writeFileSync(join(damaged.directory, "about.json"), "{}");
  mkdirSync(join(directory, "process-image-unfinished"));
  const found = await findProcessImage(directory, FITS, nobody);
  expect(imagesThere().map((name) => join(directory, name))).toEqual([found?.directory ?? ""]);
  const error = await pagesOverTemplate(damaged.memoryPath).catch((reason: Error) => reason);
  expect(String(error)).toContain("Cannot tell which pages");
});
