/** Options of commands that reach registries, and the credentials that are found without any. */
import { resolve } from "node:path";
import type { PullImageRequest } from "../contract/api.ts";
import { parseReference } from "../contract/reference.ts";
import { readOptional } from "../sys/paths.ts";
import { usageError } from "./arguments.ts";
import type { OptionSpecs, OptionValues } from "./specification.ts";

/** The options, as skopeo and podman call them. */
export const REGISTRY_OPTIONS = {
  creds: { kind: "value", value: "USER:PASSWORD", summary: "Credentials; others can see them while the command runs" },
  authfile: { kind: "value", value: "FILE", summary: "Credentials as podman and docker keep them", complete: "file" },
  "cert-dir": { kind: "value", value: "DIR", summary: "Certificates: *.crt, *.cert, *.key", complete: "file" },
  "tls-verify": {
    kind: "value",
    value: "BOOLEAN",
    summary: "Verify TLS (true; false on the loopback address)",
    complete: ["true", "false"],
  },
} as const satisfies OptionSpecs;

type Access = Pick<PullImageRequest, "credentials" | "authFile" | "certDir" | "tlsVerify">;

/**
 * What the options say. Without credentials in them, the first file of this user's that has some for the registry of `reference` (for any, if
 * there is no reference) is named: the daemon's user has others.
 * @throws MayflyError `invalid_argument`.
 */
export async function registryAccess(
  options: OptionValues<typeof REGISTRY_OPTIONS>,
  reference: string | undefined,
): Promise<Access> {
  const access: Access = {};
  const { creds, authfile } = options;
  const [certDir, tlsVerify] = [options["cert-dir"], options["tls-verify"]];
  if (creds !== undefined) access.credentials = credentialsOf(creds);
  if (authfile !== undefined) access.authFile = resolve(authfile);
  if (certDir !== undefined) access.certDir = resolve(certDir);
  if (tlsVerify !== undefined) access.tlsVerify = truthOf(tlsVerify);
  if (creds !== undefined || authfile !== undefined) return access;
  const found = await ownAuthFile(reference === undefined ? undefined : parseReference(reference).domain);
  return found === undefined ? access : { ...access, authFile: found };
}

function credentialsOf(text: string): { username: string; password: string } {
  const colon = text.indexOf(":");
  if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  throw usageError("mayfly pull", "--creds wants USER:PASSWORD");
}

function truthOf(text: string): boolean {
  if (text === "true" || text === "false") return text === "true";
  throw usageError("mayfly pull", `--tls-verify is true or false, not ${JSON.stringify(text)}`);
}

/** Where containers-auth.json(5) and docker look, in this order. */
async function ownAuthFile(domain: string | undefined): Promise<string | undefined> {
  const {
    HOME: home = "/root",
    XDG_RUNTIME_DIR: runtime,
    DOCKER_CONFIG: docker,
    REGISTRY_AUTH_FILE: named,
  } = process.env;
  const files = [
    ...(named ? [named] : []),
    ...(runtime ? [`${runtime}/containers/auth.json`] : []),
    `${process.env["XDG_CONFIG_HOME"] || `${home}/.config`}/containers/auth.json`,
    `${docker || `${home}/.docker`}/config.json`,
  ];
  for (const file of files) {
    const text = await readOptional(file).catch(() => undefined);
    if (text !== undefined && hasCredentials(text, domain)) return resolve(file);
  }
  return undefined;
}

function hasCredentials(text: string, domain: string | undefined): boolean {
  const document = objectIn(parsed(text));
  const registries = [...Object.keys(objectIn(document["auths"])), ...Object.keys(objectIn(document["credHelpers"]))];
  if (typeof document["credsStore"] === "string") return true;
  if (domain === undefined) return registries.length > 0;
  const names = domain === "docker.io" ? ["docker.io", "index.docker.io"] : [domain];
  return registries.some((registry) => names.includes(registry.replace(/^https?:\/\//, "").split("/")[0] ?? ""));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function objectIn(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? Object.fromEntries(Object.entries(value)) : {};
}
