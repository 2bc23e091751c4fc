/** Commands for images, over a daemon whose engine is a fake. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { FakeInstallation } from "../../tests/support/mayfly-process.ts";
import { sampleImage } from "../../tests/support/samples.ts";
import { registryAccess } from "./registry-options.ts";

let fake: FakeInstallation;

beforeAll(() => {
  fake = new FakeInstallation();
});
afterAll(() => fake[Symbol.asyncDispose]());

const HEX = "0".repeat(12);

describe("images", () => {
  test("pull prints the name, and says whether anything was fetched", async () => {
    expect(await fake.run(["pull", "debian:12"])).toEqual({
      stdout: "alpha\n",
      stderr: "mayfly: alpha is here\n",
      exitCode: 0,
    });
    const same = await fake.run(["pull", "same"]);
    expect(same.stderr).toBe("mayfly: alpha is here as it is there\n");
    expect((await fake.run(["image", "pull", "-q", "same", "other"])).stdout).toBe("alpha\nalpha\n");
    const json = await fake.run(["--json", "pull", "same"]);
    expect(JSON.parse(json.stdout)).toEqual({ ...sampleImage, unchanged: true });
    expect(json.stderr).toBe("");
    const none = await fake.run(["pull", "--json", "none"]);
    expect([none.exitCode, JSON.parse(none.stderr).code]).toEqual([125, "image_not_found"]);
    for (const words of [["--creds", "nobody", "x"], ["--tls-verify", "maybe", "x"], []]) {
      expect((await fake.run(["pull", ...words])).exitCode).toBe(125);
    }
  });

  test("load takes a path, or standard input", async () => {
    expect(await fake.run(["load", "archive.tar"])).toEqual({
      stdout: "Loaded image: alpha\n",
      stderr: "",
      exitCode: 0,
    });
    expect((await fake.run(["load", "-q", "-i", "archive.tar"])).stdout).toBe(`sha256:${"0".repeat(64)}\n`);
    const sent = await fake.run(["load"], { stdin: new Blob(["good"]) });
    expect(sent).toEqual({ stdout: "Loaded image: alpha\n", stderr: "", exitCode: 0 });
    const bad = await fake.run(["load", "-"], { stdin: new Blob(["bad"]) });
    expect([bad.exitCode, bad.stderr]).toEqual([125, "mayfly: Cannot load /bad: it is no image\n"]);
    expect((await fake.run(["load", "-i", "a", "b"])).stderr).toContain("given twice");
  });

  test("load of standard input starts the daemon, too", async () => {
    await using other = new FakeInstallation();
    const sent = await other.run(["load"], { stdin: new Blob(["good"]) });
    expect(sent).toEqual({ stdout: "Loaded image: alpha\n", stderr: "", exitCode: 0 });
  });

  test("build prints what its programs print on standard error, and the id", async () => {
    const built = await fake.run(["build", "-t", "app:1", "--build-arg", "A=b", "--build-arg", "HOME", "."]);
    expect(built).toEqual({
      stdout: `sha256:${"0".repeat(64)}\n`,
      stderr: "STEP 1/1: FROM scratch\nmade it\n",
      exitCode: 0,
    });
    expect((await fake.run(["build", "-q", "."])).stderr).toBe("");
    const json = await fake.run(["build", "--json", "."]);
    expect([JSON.parse(json.stdout), json.stderr]).toEqual([[sampleImage], ""]);
    const broken = await fake.run(["build", "--target", "broken", "."]);
    expect(broken.exitCode).toBe(125);
    const failure = "mayfly: Cannot build the image: exit status 3\n";
    expect(broken.stderr).toBe(`STEP 1/1: FROM scratch\nmade it\n${failure}`);
    const quiet = await fake.run(["build", "-q", "--target", "broken", "."]);
    expect(quiet.stderr).toBe(`${failure}  standard error, last lines:\n    exit status 3\n`);
    expect((await fake.run(["build", "--build-arg", "=x", "."])).stderr).toContain("has no name");
  });

  test("lists: names and tags as docker has them, ids, filters", async () => {
    const { stdout } = await fake.run(["images"]);
    expect(stdout.split("\n")[0]).toMatch(/^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE$/);
    expect(stdout.split("\n")[1]).toMatch(new RegExp(`^alpha +- +${HEX} +.* ago +4KiB$`));
    expect((await fake.run(["images", "-q"])).stdout).toBe(`${HEX}\n`);
    expect((await fake.run(["image", "ls", "--names"])).stdout).toBe("alpha\n");
    expect((await fake.run(["images", "-q", "--no-trunc", "alpha"])).stdout).toBe(`sha256:${"0".repeat(64)}\n`);
    expect((await fake.run(["images", "-q", "beta"])).stdout).toBe("");
    expect((await fake.run(["images", "--digests"])).stdout).toContain("<none>");
  });

  test("tag, rmi, prune, inspect", async () => {
    expect(await fake.run(["tag", "alpha", "b:2"])).toEqual({ stdout: "", stderr: "", exitCode: 0 });
    expect(JSON.parse((await fake.run(["tag", "--json", "alpha", "b:2"])).stdout).name).toBe("b:2");
    expect((await fake.run(["rmi", "alpha"])).stdout).toBe("alpha\n");
    const two = await fake.run(["rmi", "nobody", "alpha"]);
    expect([two.exitCode, two.stdout, two.stderr.includes("nobody")]).toEqual([125, "alpha\n", true]);
    expect((await fake.run(["image", "prune", "-af"])).stdout).toBe("alpha\nFreed: 0B\n");
    const asked = await fake.run(["image", "prune"]);
    expect([asked.exitCode, asked.stderr.includes("--force")]).toEqual([125, true]);
    expect(JSON.parse((await fake.run(["inspect", "alpha"])).stdout)[0].document).toEqual({ architecture: "amd64" });
    expect((await fake.run(["inspect", "nobody"])).stderr).toContain('no VM and no image "nobody"');
  });
});

describe("credentials without options", () => {
  const options = { creds: undefined, authfile: undefined, "cert-dir": undefined, "tls-verify": undefined };

  test("are those of the first file that has some for the registry", async () => {
    const home = `${fake.directory}/home`;
    const save = (path: string, document: unknown) => {
      mkdirSync(`${home}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
      writeFileSync(`${home}/${path}`, typeof document === "string" ? document : JSON.stringify(document));
    };
    const names = ["HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"] as const;
    const before = names.map((name) => process.env[name]);
    for (const name of names) delete process.env[name];
    process.env["HOME"] = home;
    try {
      const found = async (reference?: string) =>
        (await registryAccess(options, reference)).authFile?.slice(home.length + 1);
      expect(await found("example.com/app")).toBeUndefined();
      save(".config/containers/auth.json", { auths: { "example.com": { auth: "eA==" } } });
      save(".docker/config.json", {
        auths: { "https://index.docker.io/v1/": {} },
        credHelpers: { "helped.example.com": "x" },
      });
      expect(await found("example.com/app")).toBe(".config/containers/auth.json");
      expect(await found("debian")).toBe(".docker/config.json");
      expect(await found("helped.example.com/app")).toBe(".docker/config.json");
      expect(await found("other.example.com/app")).toBeUndefined();
      expect(await found()).toBe(".config/containers/auth.json");
      save(".docker/config.json", { credsStore: "x" });
      expect(await found("other.example.com/app")).toBe(".docker/config.json");
      save(".config/containers/auth.json", "no JSON");
      expect(await found("example.com/app")).toBe(".docker/config.json");
      process.env["REGISTRY_AUTH_FILE"] = `${home}/.docker/config.json`;
      expect(await found("example.com/app")).toBe(".docker/config.json");
    } finally {
      names.forEach((name, index) => {
        const value = before[index];
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      });
    }
  });

  test("options go before", async () => {
    const given = { ...options, creds: "me:a:b", "cert-dir": "/certs", "tls-verify": "false" };
    expect(await registryAccess(given, "localhost/app")).toEqual({
      ...{ credentials: { username: "me", password: "a:b" }, certDir: "/certs", tlsVerify: false },
    });
    expect(await registryAccess({ ...options, authfile: "/auth.json" }, "x")).toEqual({ authFile: "/auth.json" });
  });
});
