/** Probes, warm-ups and pool sizes as words of the command line. */

import { MayflyError } from "../contract/errors.ts";
import type { PoolRequest, ReadyProbe, WarmUp } from "../contract/template.ts";
import { parseCount } from "./sizes.ts";

const SHELL = ["/bin/sh", "-c"] as const;

/** `http://:8080/health`, `tcp://:5432`, `exec:COMMAND`, `log:REGEX` or `started`. @throws MayflyError `invalid_argument`. */
export function parseReady(text: string): ReadyProbe {
  if (text === "started") return { kind: "started" };
  if (text.startsWith("exec:") && text.length > 5) return { kind: "exec", command: [...SHELL, text.slice(5)] };
  if (text.startsWith("log:") && text.length > 4) return { kind: "log", pattern: text.slice(4) };
  const address = parseAddress(text);
  if (address?.scheme === "http") return { kind: "http", port: address.port ?? 80, path: address.path };
  if (address?.scheme === "tcp" && address.port !== undefined && address.path === "/") {
    return { kind: "tcp", port: address.port };
  }
  throw new MayflyError(
    "invalid_argument",
    `--ready is ${JSON.stringify(text)}, not http://:PORT/PATH, tcp://:PORT, exec:COMMAND, log:REGEX or started`,
  );
}

/** A URL like `http://:8080/path`, or a command for the shell. @throws MayflyError `invalid_argument`. */
export function parseWarmUp(text: string): WarmUp {
  if (!/^[a-z]+:\/\//i.test(text)) {
    if (text.trim() !== "") return { kind: "exec", command: [...SHELL, text] };
    throw new MayflyError("invalid_argument", "--warm-up is empty, not a command or http://:PORT/PATH");
  }
  const address = parseAddress(text);
  if (address?.scheme === "http") return { kind: "http", port: address.port ?? 80, path: address.path };
  throw new MayflyError("invalid_argument", `--warm-up is ${JSON.stringify(text)}, not a command or http://:PORT/PATH`);
}

/** `WARM`, `WARM:BLOCKED` or `WARM:BLOCKED:PARENT`. @throws MayflyError `invalid_argument`. */
export function parsePool(option: string, text: string): PoolRequest {
  const [warm = "", blocked = "0", parent, ...rest] = text.split(":");
  const sizes = { warm: parseCount(option, warm), blocked: parseCount(option, blocked) };
  if (parent === undefined) return sizes;
  if (rest.length === 0 && (parent === "0" || parent === "1")) return { ...sizes, parent: parent === "1" };
  throw new MayflyError(
    "invalid_argument",
    `${option} is ${JSON.stringify(text)}, not WARM[:BLOCKED[:PARENT]] with 0 or 1 as PARENT`,
  );
}

/** An address in the VM: its host is the VM itself, by no name or as `localhost`. */
function parseAddress(text: string): { scheme: string; port: number | undefined; path: string } | undefined {
  const match = /^([a-z]+):\/\/(?:localhost|127\.0\.0\.1)?(?::(\d{1,5}))?(\/[\x21-\x7e]*)?$/i.exec(text);
  if (match === null) return undefined;
  const [, scheme = "", digits, path = "/"] = match;
  const port = digits === undefined ? undefined : Number(digits);
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined;
  return { scheme: scheme.toLowerCase(), port, path };
}
