/** Changes of a container, from what its root's upper directory holds. */
import { expect, test } from "bun:test";
import type { SurveyedChange } from "../agent/survey.ts";
import { changesBetween, describeChanges } from "./changes.ts";

const entry = (path: string, given: Partial<SurveyedChange> = {}): SurveyedChange => ({
  path,
  isDirectory: false,
  isDeleted: false,
  inImage: false,
  directoryInImage: false,
  sameOwner: false,
  sameTime: false,
  isCut: false,
  stamp: "1",
  ...given,
});
const directory = { isDirectory: true } as const;
const there = { inImage: true } as const;
/** A directory of the image that was copied up unchanged. */
const copied = { ...directory, ...there, directoryInImage: true, sameOwner: true, sameTime: true } as const;
const lines = (entries: SurveyedChange[], targets: string[] = []) =>
  describeChanges(entries, targets).map(({ kind, path }) => `${kind[0]?.toUpperCase()} ${path}`);

test("files are added, changed and deleted, in the order of their paths", () => {
  const entries = [
    entry("/etc", { ...copied, sameTime: false }),
    entry("/etc/new"),
    entry("/etc/motd", there),
    entry("/etc/gone", { ...there, isDeleted: true }),
    entry("/a", directory),
    entry("/a/b", directory),
  ];
  expect(lines(entries)).toEqual(["A /a", "A /a/b", "C /etc", "D /etc/gone", "C /etc/motd", "A /etc/new"]);
});

test("a directory changes with what is added to it or deleted, not with what is changed in it", () => {
  expect(lines([entry("/etc", copied), entry("/etc/motd", there)])).toEqual(["C /etc/motd"]);
  expect(lines([entry("/etc", copied), entry("/etc/new")])).toEqual(["C /etc", "A /etc/new"]);
  expect(lines([entry("/etc", { ...copied, sameOwner: false })])).toEqual(["C /etc"]);
  expect(lines([entry("/x", { ...directory, ...there })])).toEqual(["C /x"]);
});

test("what is made for every container is none of its changes", () => {
  const entries = [
    entry("/etc", { ...copied, sameTime: false }),
    ...["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/machine-id"].map((path) => entry(path)),
    ...["/proc", "/sys", "/dev", "/tmp", "/run", "/run/secrets"].map((path) => entry(path, directory)),
    ...["/srv", "/srv/data"].map((path) => entry(path, directory)),
  ];
  expect(lines(entries, ["/srv/data"])).toEqual([]);
  expect(lines([...entries, entry("/tmp/own")], ["/srv/data"])).toEqual(["A /tmp", "A /tmp/own"]);
  expect(lines([...entries, entry("/etc/own")], ["/srv/data"])).toEqual(["C /etc", "A /etc/own"]);
  expect(lines(entries)).toEqual(["A /srv", "A /srv/data"]);
  expect(lines([entry("/etc/hosts", there)])).toEqual(["C /etc/hosts"]);
});

test("names may be anything", () => {
  expect(lines([entry("/a\nD /etc\u001b[0m")])).toEqual(["A /a\nD /etc\u001b[0m"]);
});

test("between two surveys are what is new, what is other and what is gone", () => {
  const later = { stamp: "2" } as const;
  const before = [
    entry("/same"),
    entry("/written"),
    entry("/gone"),
    entry("/changed", there),
    entry("/deleted", { ...there, isDeleted: true }),
    entry("/back", { ...there, isDeleted: true }),
    entry("/kept", { ...there, isDeleted: true }),
    entry("/made", directory),
    entry("/etc/hosts", there),
  ];
  const now = [
    entry("/same"),
    entry("/written", later),
    entry("/new"),
    entry("/changed", { ...there, isDeleted: true }),
    entry("/back", { ...there, ...later }),
    entry("/kept", { ...there, isDeleted: true, ...later }),
    entry("/made", { ...directory, ...later }),
    entry("/etc/hosts", { ...there, ...later }),
  ];
  const told = changesBetween(now, before, []).map(({ kind, path }) => `${kind} ${path}`);
  expect(told).toEqual([
    "added /back",
    "deleted /changed",
    "added /deleted",
    "deleted /gone",
    "added /new",
    "changed /written",
  ]);
});
