import { expect, test } from "bun:test";
import { imagesOf } from "./dockerfile.ts";

test.each<[what: string, text: string, images: string[], args?: Record<string, string>, target?: string]>([
  ["one stage", "FROM debian:12\nRUN true", ["debian:12"]],
  ["nothing", "FROM scratch\nCOPY a /", []],
  ["stages of its own", "FROM a AS Build\nFROM build\nFROM b\nCOPY --from=build x y\nCOPY --from=0 x y", ["a", "b"]],
  [
    "images copied and mounted from",
    "FROM scratch\nCOPY --chown=1 --from=x:1 a b\nADD --from=y a b\nRUN --mount=type=bind,from=z,target=/z true",
    ["x:1", "y", "z"],
  ],
  ["a platform", "FROM --platform=$BUILDPLATFORM golang AS go", ["golang"]],
  ["defaults of arguments", "ARG V=12\nARG BASE=debian:$V\nFROM ${BASE}", ["debian:12"]],
  ["arguments that are given", "ARG V=12\nFROM debian:${V}", ["debian:13"], { V: "13" }],
  ["arguments that are not declared", "FROM debian:${V:-12}-${W:+x}$TARGETARCH", ["debian:12-amd64"], { V: "13" }],
  ["other defaults", "ARG A\nARG B=b\nFROM ${A:-a}/${B:+c}", ["a/c"]],
  [
    "arguments of a stage are not those before the first",
    "ARG X=a\nFROM scratch\nARG X=b\nCOPY --from=$X / /\nFROM $X",
    ["b", "a"],
  ],
  [
    "lines that go on, comments and case",
    "# escape=\\\nfrom \\\n  # what it is made of\n\n  debian \\\n  as x\ncopy \\\n --from=y / /",
    ["debian", "y"],
  ],
  ["another sign for lines that go on", "# escape=`\nFROM `\n debian\nRUN echo \\\nFROM other", ["debian", "other"]],
  ["quotes and escapes", 'ARG A="x"\nFROM "$A"\\:1', ["x:1"]],
  ["up to a target", "FROM a AS one\nFROM b AS two\nFROM c", ["a", "b"], {}, "TWO"],
  ["up to a target's number", "FROM a\nFROM b\nFROM c", ["a"], {}, "0"],
  ["words that look like flags further on", "FROM a\nCMD echo --from=b\nRUN x --from=c", ["a"]],
  ["nothing at all", "", []],
])("%s", (_what, text, images, args = {}, target = undefined) => {
  expect(imagesOf(text, args, target)).toEqual(images);
});
