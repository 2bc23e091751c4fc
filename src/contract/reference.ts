/** Names of images as docker has them (distribution's "reference" grammar): `debian` is `docker.io/library/debian:latest`. */
import { MayflyError } from "./errors.ts";

/** A reference in its parts. */
export interface Reference {
  /** Registry, with its port if it has one: `docker.io`, `localhost:5000`. */
  domain: string;
  /** Repository within the registry: `library/debian`. */
  path: string;
  /** Absent if a digest was given and no tag. */
  tag?: string;
  /** `sha256:` and 64 hexadecimal digits. */
  digest?: string;
}

const DEFAULT_DOMAIN = "docker.io";
const OFFICIAL = "library/";
const DEFAULT_TAG = "latest";
const MAX_NAME = 255;
const MAX_TEXT = 512;

const DOMAIN_PART = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const DOMAIN = new RegExp(`^(?:${DOMAIN_PART}(?:\\.${DOMAIN_PART})*|\\[[0-9a-fA-F:]+\\])(?::[0-9]{1,5})?$`);
const PATH_PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const PATH = new RegExp(`^${PATH_PART}(?:/${PATH_PART})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const IDENTIFIER = /^[0-9a-f]{64}$/;

/**
 * Reads a reference, completing what docker completes: registry, `library/`, and `latest` where neither tag nor digest is given.
 * @throws MayflyError `invalid_argument`, saying which part is wrong.
 */
export function parseReference(text: string): Reference {
  if (text === "" || text.length > MAX_TEXT) throw invalid(text, `it has ${text.length} characters`);
  const at = text.indexOf("@");
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !DIGEST.test(digest)) {
    throw invalid(text, `its digest is not sha256: and 64 hexadecimal digits`);
  }
  const { name, tag } = splitTag(at < 0 ? text : text.slice(0, at));
  if (tag !== undefined && !TAG.test(tag)) throw invalid(text, `its tag is not of letters, digits, "_", "." and "-"`);
  if (IDENTIFIER.test(name)) throw invalid(text, "64 hexadecimal digits are an id, not a name");
  const { domain, path } = splitDomain(name);
  if (!DOMAIN.test(domain)) throw invalid(text, `${JSON.stringify(domain)} is no registry`);
  if (!PATH.test(path)) {
    const hint = path === path.toLowerCase() ? "" : ": it has capital letters";
    throw invalid(text, `${JSON.stringify(path)} is no repository${hint}`);
  }
  if (domain.length + path.length + 1 > MAX_NAME) throw invalid(text, `its name is longer than ${MAX_NAME} characters`);
  const given = tag ?? (digest === undefined ? DEFAULT_TAG : undefined);
  return { domain, path, ...(given === undefined ? {} : { tag: given }), ...(digest === undefined ? {} : { digest }) };
}

/** As {@link parseReference}; `undefined` for what is none. */
export function tryReference(text: string): Reference | undefined {
  try {
    return parseReference(text);
  } catch {
    return undefined;
  }
}

/** The whole text of a reference; {@link parseReference} reads it back as it was. */
export function formatReference({ domain, path, tag, digest }: Reference): string {
  return `${domain}/${path}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}

/** The shortest text that means a whole name, as people know it: `debian:12`; what is no reference stays as it is. */
export function familiarName(name: string): string {
  const reference = tryReference(name);
  if (reference === undefined || formatReference(reference) !== name) return name;
  const { domain, path, ...rest } = reference;
  if (domain !== DEFAULT_DOMAIN) return name;
  const short =
    path.startsWith(OFFICIAL) && !path.slice(OFFICIAL.length).includes("/") ? path.slice(OFFICIAL.length) : path;
  // `docker.io/localhost/app` would become another registry's.
  if (splitDomain(short).domain !== DEFAULT_DOMAIN) return name;
  return formatReference({ domain, path: short, ...rest }).slice(domain.length + 1);
}

/** Whether a registry is this machine itself: `localhost`, 127.0.0.0/8 or `[::1]`, with or without a port. */
export function isLoopback(domain: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/.test(domain);
}

/** A colon after the last slash begins the tag; one before it belongs to the registry's port. */
function splitTag(text: string): { name: string; tag?: string } {
  const colon = text.lastIndexOf(":");
  if (colon < 0 || colon < text.lastIndexOf("/") || text.endsWith("]")) return { name: text };
  return { name: text.slice(0, colon), tag: text.slice(colon + 1) };
}

/** The first part is a registry if it has a dot, a colon or a capital letter, or is `localhost`. */
function splitDomain(name: string): { domain: string; path: string } {
  const slash = name.indexOf("/");
  const first = name.slice(0, Math.max(0, slash));
  const isDomain = /[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase();
  const domain = isDomain ? (first === "index.docker.io" ? DEFAULT_DOMAIN : first) : DEFAULT_DOMAIN;
  const path = isDomain ? name.slice(slash + 1) : name;
  return { domain, path: domain === DEFAULT_DOMAIN && !path.includes("/") ? `${OFFICIAL}${path}` : path };
}

function invalid(text: string, why: string): MayflyError {
  const shown = text.length <= 200 ? text : `${text.slice(0, 197)}...`;
  return new MayflyError("invalid_argument", `${JSON.stringify(shown)} is no name of an image: ${why}`);
}
