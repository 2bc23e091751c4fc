import { expect, test } from "bun:test";
import { BUILD_PACKAGES, configureOptions, DEVICES, flagsFor, recipeHash } from "./qemu-recipe.ts";

test("configure is asked for what is listed and nothing else", () => {
  const options = configureOptions({ pie: false });
  expect(options.every((option) => /^--[a-z]/.test(option))).toBe(true);
  for (const option of ["--without-default-features", "--enable-kvm", "--enable-tcg", "--enable-seccomp", "--static"]) {
    expect(options).toContain(option);
  }
  expect(options.at(-1)).toBe("--disable-pie");
  expect(configureOptions({ pie: true }).at(-1)).toBe("--enable-pie");
});

test("the devices are those of the profile", () => {
  const devices = [...DEVICES.matchAll(/^CONFIG_(\w+)=y$/gm)].map((match) => match[1]);
  expect(devices).toEqual(["MICROVM", "VIRTIO_SERIAL", "VIRTIO_BLK", "VIRTIO_NET", "VIRTIO_RNG"]);
});

test("the directory of a build is not in its result", () => {
  const { compiler, linker } = flagsFor("/a/b", "/a/b/fdt_create.o");
  expect(compiler).toContain("-ffile-prefix-map=/a/b=/qemu");
  expect(linker).toContain("--build-id=none");
  expect(linker).toContain("/a/b/fdt_create.o");
});

test("packages are names, without the comments", () => {
  expect(BUILD_PACKAGES.every((name) => /^[a-z0-9.+-]+$/.test(name))).toBe(true);
  expect(BUILD_PACKAGES).toContain("libglib2.0-dev");
});

test("all that decides about the bytes decides about the name", () => {
  const one = recipeHash({ pie: false }, ["1:10.0.13", "1.7.0", "gcc 12"]);
  expect(one).toMatch(/^[0-9a-f]{64}$/);
  expect(recipeHash({ pie: false }, ["1:10.0.13", "1.7.0", "gcc 12"])).toBe(one);
  const others = [
    recipeHash({ pie: true }, ["1:10.0.13", "1.7.0", "gcc 12"]),
    recipeHash({ pie: false }, ["1:10.0.14", "1.7.0", "gcc 12"]),
    recipeHash({ pie: false }, ["1:10.0.13", "1.7.0", "gcc 13"]),
    recipeHash({ pie: false }, ["1:10.0.13", "1.7.0gcc 12", ""]),
  ];
  expect(new Set([one, ...others]).size).toBe(5);
});
