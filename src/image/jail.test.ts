import { expect, test } from "bun:test";
import { isRoot, makeDirectory, readOptional, removePath, temporaryDirectory, writeText } from "../sys/paths.ts";
import { exists } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import { JAIL_DIRECTORY, jailed } from "./jail.ts";
import { buildTar } from "./tar-builder.ts";

/** What the rules would refuse, given to tar straight and with its own safeguards off: the jail alone has to hold. */
test.skipIf(!isRoot())("an unpacker that is fooled can write to its directory only", async () => {
  const work = await temporaryDirectory("mayfly-jail");
  try {
    for (const name of ["root", "writable", "outside"]) await makeDirectory(`${work}/${name}`);
    const tarball = buildTar([
      { name: `${work}/outside/absolute`, content: "x" },
      { name: "../../../../usr/bin/mayfly-jail-test", content: "x" },
      { name: "link", type: "2", link: `${work}/outside` },
      { name: "link/through", content: "x" },
      { name: "good", content: "kept" },
    ]);
    const tar = ["/usr/bin/tar", "-x", "-P", "--keep-directory-symlink", "-C", JAIL_DIRECTORY];
    await runTool(jailed(`${work}/root`, `${work}/writable`, tar), { input: tarball }).catch(() => undefined);
    expect(await readOptional(`${work}/writable/good`)).toBe("kept");
    expect(await exists(`${work}/outside/absolute`)).toBe(false);
    expect(await exists(`${work}/outside/through`)).toBe(false);
    expect(await exists("/usr/bin/mayfly-jail-test")).toBe(false);
  } finally {
    await removePath(work);
  }
});

test.skipIf(!isRoot())("the jail sees neither the host's files nor its processes nor its network", async () => {
  const work = await temporaryDirectory("mayfly-jail");
  try {
    for (const name of ["root", "writable"]) await makeDirectory(`${work}/${name}`);
    await writeText(`${work}/writable/seen`, "");
    const script = `ls / && ls ${JAIL_DIRECTORY} && echo $$ && (echo x > /usr/x || echo x > /x || echo refused) 2>&-`;
    const { stdout } = await runTool(jailed(`${work}/root`, `${work}/writable`, ["/bin/sh", "-c", script]));
    const words = stdout.split(/\s+/).filter((word) => !["bin", "lib", "lib64", "usr"].includes(word));
    expect(words).toEqual(["image", "seen", "1", "refused", ""]);
  } finally {
    await removePath(work);
  }
});
