/** Commands as data: parsing, help and shell completion are all made from it. */

/** What a shell may offer for a value. */
export type Completion =
  | "vm"
  | "template"
  | "image"
  | "volume"
  | "snapshot"
  | "kernel"
  | "qemu"
  | "file"
  | "none"
  | readonly string[];

/** An option. `value` is the placeholder that help shows. */
export type OptionSpec =
  | { kind: "flag"; short?: string; summary: string }
  | { kind: "value"; short?: string; summary: string; value: string; complete?: Completion }
  | { kind: "list"; short?: string; summary: string; value: string; complete?: Completion };

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

/** Values of options whose definitions are not known by type. */
export type AnyOptionValues = Readonly<Record<string, boolean | string | readonly string[] | undefined>>;

/** Values of options: a list has every value in its order, `undefined` is an option that was not given. */
export type OptionValues<Options extends OptionSpecs> = {
  readonly [Name in keyof Options]: Options[Name] extends { kind: "flag" }
    ? boolean
    : Options[Name] extends { kind: "list" }
      ? readonly string[]
      : string | undefined;
};

/** An operand. `command`: this and all that follows belongs to the guest, so options end before the operand ahead of it has been passed. */
export interface OperandSpec {
  name: string;
  kind: Completion | "command";
  optional?: boolean;
  many?: boolean;
}

/** Options that every command takes. */
export const UNIVERSAL_OPTIONS = {
  host: { kind: "value", short: "H", value: "ADDRESS", summary: "Daemon: unix:///path or http://host:port" },
  json: { kind: "flag", summary: "Print JSON: one document, or a line each for streams" },
  help: { kind: "flag", short: "h", summary: "Show this help" },
} as const satisfies OptionSpecs;

/** What the options before and after the command's name have said together. */
export interface GlobalOptions {
  host: string | undefined;
  json: boolean;
}

/** A command as it was called. */
export interface Call<Options extends OptionSpecs> {
  options: OptionValues<Options>;
  operands: readonly string[];
  /** Whether "--" stood right before the operands. */
  dashes: boolean;
  global: GlobalOptions;
  /** The whole command tree. */
  tree: readonly CommandEntry[];
}

/** A command's definition. */
export interface CommandSpec<Options extends OptionSpecs = OptionSpecs> {
  /** Words after the name, where the operands' names do not say enough. */
  usage?: string;
  /** Text of the help between usage and options. */
  description: string;
  operands: readonly OperandSpec[];
  options: Options;
  /** Commands as typed, each with what it does. */
  examples: readonly (readonly [command: string, what: string])[];
  /** @returns the exit code. */
  run(call: Call<Options>): Promise<number>;
}

/** A command with the types of its options erased. */
export interface Command {
  readonly spec: Omit<CommandSpec, "run">;
  /** Runs it with what the parser has read by the spec. */
  run(call: Omit<Call<OptionSpecs>, "options"> & { options: AnyOptionValues }): Promise<number>;
}

/** A command, or a group of them. */
export interface CommandEntry {
  name: string;
  summary: string;
  aliases?: readonly string[];
  /** Heading in the help under which it stands. */
  section?: string;
  load?: () => Promise<Command>;
  children?: readonly CommandEntry[];
}

/** Defines a command; `run` gets its options with their types. */
export function defineCommand<const Options extends OptionSpecs>(spec: CommandSpec<Options>): Command {
  return { spec, run: (call) => spec.run({ ...call, options: typedOptions<Options>(call.options) }) };
}

/** What the parser has read by `Options`, with their types. */
export function typedOptions<Options extends OptionSpecs>(values: AnyOptionValues): OptionValues<Options> {
  return values as OptionValues<Options>;
}
