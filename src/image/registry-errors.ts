/** What skopeo and buildah say when they fail, as errors that say what to do. Both print the messages of one library (containers/image). */

import { type ErrorCode, MayflyError } from "../contract/errors.ts";
import { formatReference, type Reference } from "../contract/reference.ts";

/** The first that matches counts. */
const KNOWN: readonly { pattern: RegExp; code: ErrorCode }[] = [
  { pattern: /no space left on device/i, code: "disk_full" },
  {
    pattern:
      /manifest unknown|name unknown|not known to registry|repository .*not found|requested access.*does not exist|: 404/i,
    code: "image_not_found",
  },
  {
    pattern:
      /unauthorized|authentication required|access to the resource is denied|denied:|invalid username\/password|: 40[13]|no basic auth/i,
    code: "registry_denied",
  },
  { pattern: /Source image rejected|signature/i, code: "registry_denied" },
  {
    pattern: /digest.*did not match|Digest did not match|does not match.*digest|blob.*size|unexpected EOF/i,
    code: "image_invalid",
  },
  {
    pattern:
      /no such host|connection refused|connection reset|i\/o timeout|deadline exceeded|no route to host|network is unreachable|pinging container registry|x509|tls:|HTTP response to HTTPS client|server misbehaving|toomanyrequests|50[0-9]/i,
    code: "registry_unreachable",
  },
];

/** The error of a registry's client as one of ours; what is no failure of the program itself comes back as it is. */
export function registryError(error: unknown, reference: Reference): unknown {
  if (!(error instanceof MayflyError) || error.code !== "tool_failed") return error;
  const tail = error.details.stderrTail ?? "";
  const reason = reasonOf(tail);
  const code = KNOWN.find(({ pattern }) => pattern.test(reason))?.code ?? "tool_failed";
  const remedy = remedyFor(code, reason, reference.domain);
  return new MayflyError(code, `Cannot pull ${formatReference(reference)}: ${said(code, reason, reference.domain)}`, {
    details: { ...(code === "tool_failed" ? { stderrTail: tail } : {}), ...(remedy === undefined ? {} : { remedy }) },
    cause: error,
  });
}

/** The message of the last line, without logrus' dress and what we have said ourselves. */
export function reasonOf(tail: string): string {
  const line = tail.trimEnd().split("\n").at(-1) ?? "";
  const quoted = /level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"/.exec(line)?.[1]?.replaceAll('\\"', '"');
  return (quoted ?? line)
    .replace(/^Error (parsing image name|initializing source|reading) "?[^" ]*"?: /, "")
    .replace(/^Error: /, "");
}

function said(code: ErrorCode, reason: string, domain: string): string {
  if (code === "image_not_found") return `the registry ${domain} has no such image`;
  if (code === "registry_denied" && !/Source image rejected|signature/i.test(reason)) {
    return `the registry ${domain} does not let us: ${reason}`;
  }
  return reason;
}

function remedyFor(code: ErrorCode, reason: string, domain: string): string | undefined {
  if (code === "registry_denied") return `--creds USER:PASSWORD, or --authfile FILE (made by: skopeo login ${domain})`;
  if (/x509|unknown authority/i.test(reason)) return "--cert-dir DIR with the authority's certificate as DIR/ca.crt";
  if (/HTTP response to HTTPS client/.test(reason)) {
    return "plain HTTP is spoken with registries on the loopback address only: reach it through a tunnel, or give it a certificate";
  }
  return undefined;
}
