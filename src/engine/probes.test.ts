import { describe, expect, test } from "bun:test";
import { rejection } from "../../tests/support/fake-peer.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import type { GuestConnection } from "./http-get.ts";
import { checkPattern, matchesLine } from "./log-pattern.ts";
import { OutputTail } from "./output-tail.ts";
import { defaultProbe, describeProbe, exercise, type ProbedGuest, untilReady } from "./probes.ts";

const soon = (ms = 5_000) => Deadline.after(ms);
const refused = () => Promise.reject(new MayflyError("connection_failed", "port 80: ECONNREFUSED"));

/** A connection that answers with `text` and ends. */
function answering(text: string, consumer: (chunk: Uint8Array) => void): GuestConnection {
  return {
    write: async () => consumer(Buffer.from(text)),
    ended: Promise.resolve(),
    close: async () => undefined,
  };
}

/** A guest in which nothing answers, but for what is given. */
function guest(parts: Partial<ProbedGuest> = {}): ProbedGuest {
  const output = new OutputTail(true);
  output.take(2, Buffer.from("starting\nstill starting\n"));
  return { connect: refused, exec: async () => ({ exitCode: 1, output: "no\n" }), output, ...parts };
}

describe("readiness", () => {
  test("is asked for until it is there", async () => {
    const answers = [
      "",
      "HTTP/1.1 503 Wait\r\n\r\n",
      "garbage\r\n\r\n",
      "HTTP/1.1 204 Fine\r\n\r\n",
      "never asked for",
    ];
    const connect: ProbedGuest["connect"] = async (_port, consumer) => {
      const text = answers.shift() ?? "";
      return text === "" ? refused() : answering(text, consumer);
    };
    await untilReady({ kind: "http", port: 80, path: "/" }, guest({ connect }), soon());
    expect(answers).toEqual(["never asked for"]);
    let tries = 0;
    const tcp: ProbedGuest["connect"] = (_port, consumer) => (++tries < 3 ? refused() : tcpOk(consumer));
    const tcpOk = async (consumer: (chunk: Uint8Array) => void) => answering("", consumer);
    await untilReady({ kind: "tcp", port: 80 }, guest({ connect: tcp }), soon());
    expect(tries).toBe(3);
    let left = 2;
    const exec: ProbedGuest["exec"] = async () => ({ exitCode: left--, output: "" });
    await untilReady({ kind: "exec", command: ["check"] }, guest({ exec }), soon());
    expect(left).toBe(-1);
    await untilReady({ kind: "started" }, guest(), soon());
  });

  test("is seen in a line of either output, also one without its end", async () => {
    const seen = guest();
    const found = untilReady({ kind: "log", pattern: "^(?:up|listening) on :\\d+" }, seen, soon());
    seen.output.take(2, Buffer.from("now listening on :80\n"));
    seen.output.take(3, Buffer.from("listen"));
    setTimeout(() => seen.output.take(3, Buffer.from("ing on :8080")), 30);
    await found;
  });

  test("that does not come says what was answered last, and how the output ends", async () => {
    const failure = async (probe: Parameters<typeof untilReady>[0], parts: Partial<ProbedGuest> = {}) => {
      const error = await rejection(untilReady(probe, guest(parts), soon(60)));
      expect(error.code).toBe("application_not_ready");
      expect(error.details["outputTail"]).toBe("starting\nstill starting\n");
      expect(error.message).toEndWith("Its output ends with: still starting");
      return error.message;
    };
    const busy: ProbedGuest["connect"] = async (_port, consumer) => answering("HTTP/1.1 500 No\r\n\r\n", consumer);
    const http = { kind: "http", port: 80, path: "/health" } as const;
    expect(await failure(http, { connect: busy })).toContain("GET http://:80/health was answered with 500");
    expect(await failure(http)).toContain("ECONNREFUSED");
    expect(await failure({ kind: "tcp", port: 80 })).toContain("ECONNREFUSED");
    expect(await failure({ kind: "exec", command: ["check", "it"] })).toContain(
      "check it ended with 1, its output with: no",
    );
    expect(await failure({ kind: "log", pattern: "ready" })).toContain('no line of the output matches "ready"');
    const hanging: ProbedGuest["connect"] = async () => ({
      write: async () => undefined,
      ended: new Promise(() => undefined),
      close: async () => undefined,
    });
    expect(await failure(http, { connect: hanging })).toContain("the answer to GET /health did not happen");
    let first = true;
    const once: ProbedGuest["connect"] = (port, consumer, deadline) => {
      const answer = first ? busy : hanging;
      first = false;
      return answer(port, consumer, deadline);
    };
    expect(await failure(http, { connect: once })).toContain("answered with 500");
  });

  test("is given up at once when asked to, and when no other try can change the answer", async () => {
    const abort = new AbortController();
    const waiting = rejection(untilReady({ kind: "tcp", port: 80 }, guest(), Deadline.after(60_000, abort.signal)));
    setTimeout(() => abort.abort(), 30);
    expect((await waiting).code).toBe("cancelled");
    const exec = () => Promise.reject(new MayflyError("command_not_found", "no /bin/sh"));
    const missing = untilReady({ kind: "exec", command: ["sh"] }, guest({ exec }), soon());
    expect((await rejection(missing)).code).toBe("command_not_found");
  });

  test("without a word about it is the health check's, the first port's, or the start's", () => {
    expect(defaultProbe({ test: ["CMD", "check", "-q"] }, [80])).toEqual({ kind: "exec", command: ["check", "-q"] });
    expect(defaultProbe({ test: ["CMD-SHELL", "a || b"] }, [])).toEqual({
      kind: "exec",
      command: ["/bin/sh", "-c", "a || b"],
    });
    expect(defaultProbe({ test: ["NONE"] }, [80, 90])).toEqual({ kind: "tcp", port: 80 });
    expect(defaultProbe(undefined, [])).toEqual({ kind: "started" });
  });

  test("has the words of the command line", () => {
    expect(describeProbe({ kind: "http", port: 8, path: "/x" })).toBe("GET http://:8/x");
    expect(describeProbe({ kind: "tcp", port: 8 })).toBe("tcp://:8");
    expect(describeProbe({ kind: "exec", command: ["a", "b"] })).toBe("exec:a b");
    expect(describeProbe({ kind: "log", pattern: "x+" })).toBe("log:x+");
    expect(describeProbe({ kind: "started" })).toBe("started");
  });
});

describe("a warm-up", () => {
  test("is done once, and has to succeed", async () => {
    let times = 0;
    const exec: ProbedGuest["exec"] = async () => ({ exitCode: times++, output: "first\nlast\n" });
    await exercise({ kind: "exec", command: ["warm"] }, guest({ exec }), soon());
    const error = await rejection(exercise({ kind: "exec", command: ["warm"] }, guest({ exec }), soon()));
    expect([error.code, times]).toEqual(["application_not_ready", 2]);
    expect(error.message).toContain("the warm-up failed: warm ended with 1, its output with: last");
  });
});

describe("a pattern", () => {
  const lines = (text: string) => Buffer.from(text);

  test("is a regular expression of Perl's, over single lines", async () => {
    expect(await matchesLine("^b\\d{2}(?!x)", lines("a\nb12\n"), soon())).toBe(true);
    expect(await matchesLine("^b\\d{2}(?!x)", lines("a\nb12x\n"), soon())).toBe(false);
    expect(await matchesLine("a.b", lines("a\nb\n"), soon())).toBe(false);
    expect(await matchesLine("-e x", lines("an -e x\n"), soon())).toBe(true);
    expect(await matchesLine("bin", new Uint8Array([0, 1, 98, 105, 110, 0, 255, 10]), soon())).toBe(true);
  });

  test("that is none is refused with the reason", async () => {
    for (const pattern of ["(", "[z-a]", "a\nb"]) {
      const error = await rejection(checkPattern(pattern, soon()));
      expect([error.code, error.message]).toEqual([
        "invalid_argument",
        expect.stringContaining(JSON.stringify(pattern)),
      ]);
    }
  });

  test("cannot be made to try for ever by what a guest prints", async () => {
    const hostile = lines(`${"a".repeat(100_000)}b\n`);
    const error = await rejection(matchesLine("^(a|aa|a?)+$", hostile, soon()));
    expect(error.code).toBe("invalid_argument");
    expect(error.message).toContain("backtracking limit");
  });
});
