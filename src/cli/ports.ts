/** `--publish` as docker writes it: `[IP:][HOSTPORT:]PORT[/tcp]`, ports or ranges of them. */
import type { PortMapping, PublishedPort } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";

const MAX_PORT = 65_535;
/** A range wider than this is a mistake. */
const MAX_RANGE = 256;

/**
 * The mappings that one value stands for.
 * @throws MayflyError `invalid_argument`.
 */
export function parsePublish(text: string): PortMapping[] {
  const slash = text.indexOf("/");
  const protocol = slash < 0 ? "tcp" : text.slice(slash + 1);
  if (protocol !== "tcp") {
    throw invalid(text, `${JSON.stringify(protocol)} cannot be forwarded, only tcp`);
  }
  const { hostIp, ports } = splitAddress(text, slash < 0 ? text : text.slice(0, slash));
  const parts = ports.split(":");
  if (parts.length > 2) throw invalid(text, "it has too many parts; an IPv6 address stands in brackets");
  const guest = range(text, parts.at(-1) ?? "");
  const host = parts.length === 2 && parts[0] !== "" && parts[0] !== "0" ? range(text, parts[0] ?? "") : undefined;
  const count = guest.last - guest.first + 1;
  if (host !== undefined && host.last - host.first + 1 !== count) {
    throw invalid(text, "the two ranges have different lengths");
  }
  return Array.from({ length: count }, (_, index) => ({
    ...(hostIp === undefined ? {} : { hostIp }),
    hostPort: host === undefined ? 0 : host.first + index,
    guestPort: guest.first + index,
  }));
}

function splitAddress(text: string, value: string): { hostIp: string | undefined; ports: string } {
  const bracketed = /^\[([0-9a-fA-F:.]+)\]:(.*)$/.exec(value);
  if (bracketed !== null) return { hostIp: bracketed[1], ports: bracketed[2] ?? "" };
  const dotted = /^(\d+\.\d+\.\d+\.\d+):(.*)$/.exec(value);
  if (dotted === null) return { hostIp: undefined, ports: value };
  const [, address = "", ports = ""] = dotted;
  if (address.split(".").some((part) => Number(part) > 255)) throw invalid(text, `${address} is no address`);
  return { hostIp: address, ports };
}

function range(text: string, value: string): { first: number; last: number } {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(value);
  if (match === null) throw invalid(text, `${JSON.stringify(value)} is no port`);
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  if (first < 1 || last > MAX_PORT) throw invalid(text, `ports are 1 to ${MAX_PORT}`);
  if (last < first || last - first >= MAX_RANGE)
    throw invalid(text, `${value} is no range of at most ${MAX_RANGE} ports`);
  return { first, last };
}

function invalid(text: string, why: string): MayflyError {
  return new MayflyError("invalid_argument", `--publish is ${JSON.stringify(text)}: ${why}`, {
    details: { remedy: "use [IP:][HOSTPORT:]PORT, e.g. 127.0.0.1:8080:80" },
  });
}

/** Where a published port listens, e.g. `127.0.0.1:8080` or `[::]:8080`. */
export function publishedAddress({ hostIp, hostPort }: PublishedPort): string {
  return `${hostIp.includes(":") ? `[${hostIp}]` : hostIp}:${hostPort}`;
}

/** Published ports on one line, as docker's `ps` has them: consecutive ones as ranges. */
export function formatPorts(ports: readonly PublishedPort[]): string {
  const sorted = [...ports].sort(
    (a, b) => a.hostIp.localeCompare(b.hostIp) || a.guestPort - b.guestPort || a.hostPort - b.hostPort,
  );
  const ranges: { first: PublishedPort; count: number }[] = [];
  for (const port of sorted) {
    const range = ranges.at(-1);
    const follows = (name: "hostPort" | "guestPort") =>
      range !== undefined && port[name] === range.first[name] + range.count;
    if (range !== undefined && port.hostIp === range.first.hostIp && follows("hostPort") && follows("guestPort")) {
      range.count += 1;
    } else ranges.push({ first: port, count: 1 });
  }
  const span = (first: number, count: number) => (count === 1 ? String(first) : `${first}-${first + count - 1}`);
  return ranges
    .map(({ first, count }) => {
      const host = publishedAddress(first).replace(/\d+$/, span(first.hostPort, count));
      return `${host}->${span(first.guestPort, count)}/tcp`;
    })
    .join(", ");
}
