/** Whether a template fits: the fingerprint of a machine, its hash, and the names of what differs. */
import { createHash } from "node:crypto";
import type { Fingerprint } from "../contract/machine.ts";

/** Hash of a fingerprint, hexadecimal SHA-256 over its members in the order of their names. */
export function fingerprintHash(fingerprint: Fingerprint): string {
  const entries = Object.entries(fingerprint).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(entries)).digest("hex");
}

/** What differs between two fingerprints, as `name: template's value, this host's value`. Empty: the template fits. */
export function fingerprintDifferences(template: Fingerprint, host: Fingerprint): string[] {
  return (Object.keys(host) as (keyof Fingerprint)[])
    .filter((name) => template[name] !== host[name])
    .map((name) => `${name}: ${template[name]} in the template, ${host[name]} here`);
}
