/**
 * Reads command lines as POSIX and GNU write them, with docker's habit for commands that run something in a guest: options end
 * at the first operand. A library for this costs more start-up time than the rest of `mayfly run` together.
 */
import { MayflyError } from "../contract/errors.ts";
import type { CommandSpec, OperandSpec, OptionSpec, OptionSpecs } from "./specification.ts";
import { nearest } from "./suggest.ts";

/** What a command line has said. */
export interface ParsedArguments {
  options: Record<string, boolean | string | string[] | undefined>;
  operands: string[];
  /** Whether "--" stands right before the operands. */
  dashes: boolean;
}

/**
 * Reads arguments up to the end, or up to the first operand if `stopAtOperand`.
 * @param name how the command is called, for errors.
 * @throws MayflyError `invalid_argument`: unknown option (with the nearest known one), missing or unwanted value.
 */
export function readOptions(
  specs: OptionSpecs,
  argv: readonly string[],
  name: string,
  stopAtOperand: boolean,
): ParsedArguments {
  const options: ParsedArguments["options"] = {};
  for (const [key, spec] of Object.entries(specs)) {
    options[key] = spec.kind === "flag" ? false : spec.kind === "list" ? [] : undefined;
  }
  const reader = new Reader(specs, options, name);
  const operands: string[] = [];
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at] ?? "";
    if (argument === "--") {
      return { options, operands: [...operands, ...argv.slice(at + 1)], dashes: operands.length === 0 };
    }
    if (argument.startsWith("--")) at += reader.long(argument, argv[at + 1]);
    else if (argument.startsWith("-") && argument.length > 1) at += reader.short(argument, argv[at + 1]);
    else if (stopAtOperand) return { options, operands: argv.slice(at), dashes: false };
    else operands.push(argument);
  }
  return { options, operands, dashes: false };
}

/** Reads a command's arguments and checks the number of its operands. @throws MayflyError `invalid_argument`. */
export function parseArguments(
  spec: Pick<CommandSpec, "operands" | "options">,
  universal: OptionSpecs,
  argv: readonly string[],
  name: string,
): ParsedArguments {
  const guest = spec.operands.findIndex((operand) => operand.kind === "command");
  const parsed = readOptions({ ...universal, ...spec.options }, argv, name, guest >= 0);
  if (parsed.options["help"] === true) return parsed;
  if (guest > 0 && !parsed.dashes && parsed.operands[guest] === "--") parsed.operands.splice(guest, 1);
  checkOperands(spec.operands, parsed.operands, name);
  return parsed;
}

class Reader {
  constructor(
    readonly specs: OptionSpecs,
    readonly values: ParsedArguments["options"],
    readonly command: string,
  ) {}

  /** Reads `--name`, `--name=value` or `--name value`. @returns how many further arguments were taken. */
  long(argument: string, next: string | undefined): number {
    const equals = argument.indexOf("=");
    const name = equals < 0 ? argument.slice(2) : argument.slice(2, equals);
    const spec = Object.hasOwn(this.specs, name) ? this.specs[name] : undefined;
    if (spec === undefined) throw this.unknown(`--${name}`);
    const attached = equals < 0 ? undefined : argument.slice(equals + 1);
    if (spec.kind !== "flag") return this.#value(name, spec, `--${name}`, attached, next);
    this.values[name] = this.#truth(`--${name}`, attached);
    return 0;
  }

  /** Reads `-it`, `-eNAME=value` or `-e NAME=value`. @returns how many further arguments were taken. */
  short(argument: string, next: string | undefined): number {
    for (let at = 1; at < argument.length; at++) {
      const letter = argument[at] ?? "";
      const found = Object.entries(this.specs).findLast(([, spec]) => spec.short === letter);
      if (found === undefined) throw this.unknown(`-${letter}`);
      const [name, spec] = found;
      const rest = argument.slice(at + 1);
      if (spec.kind !== "flag")
        return this.#value(name, spec, `-${letter}`, rest === "" ? undefined : rest.replace(/^=/, ""), next);
      if (rest.startsWith("=")) {
        this.values[name] = this.#truth(`-${letter}`, rest.slice(1));
        return 0;
      }
      this.values[name] = true;
    }
    return 0;
  }

  unknown(option: string): MayflyError {
    const known = Object.keys(this.specs).map((name) => `--${name}`);
    const near = option.startsWith("--") ? nearest(option, known) : undefined;
    return usageError(this.command, `unknown option ${option}${near === undefined ? "" : ` (did you mean ${near}?)`}`);
  }

  #value(
    name: string,
    spec: OptionSpec,
    shown: string,
    attached: string | undefined,
    next: string | undefined,
  ): number {
    const value = attached ?? next;
    if (value === undefined) throw usageError(this.command, `${shown} needs a value`);
    const list = this.values[name];
    if (spec.kind === "list" && Array.isArray(list)) list.push(value);
    else this.values[name] = value;
    return attached === undefined ? 1 : 0;
  }

  #truth(shown: string, attached: string | undefined): boolean {
    if (attached === undefined || attached === "true") return true;
    if (attached === "false") return false;
    throw usageError(this.command, `${shown} takes no value, or true or false, not ${JSON.stringify(attached)}`);
  }
}

function checkOperands(specs: readonly OperandSpec[], operands: readonly string[], name: string): void {
  const missing = specs.find((spec, index) => spec.optional !== true && operands.length <= index);
  if (missing !== undefined) throw usageError(name, `${missing.name} is missing`);
  const unlimited = specs.some((spec) => spec.many === true || spec.kind === "command");
  if (!unlimited && operands.length > specs.length) {
    throw usageError(name, `unexpected argument ${JSON.stringify(operands[specs.length])}`);
  }
}

/** The error for a command line that cannot be read; its remedy is the command's help. */
export function usageError(command: string, problem: string): MayflyError {
  const within = command.replace(/^mayfly ?/, "");
  return new MayflyError("invalid_argument", `${within === "" ? "" : `${within}: `}${problem}`, {
    details: { remedy: `${command} --help` },
  });
}
