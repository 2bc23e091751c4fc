/** Signals as options and Node name them. */
import { MayflyError } from "../contract/errors.ts";
import { SIGNALS, signalByName } from "../contract/signals.ts";

export { SIGNALS };

/** Number of a signal such as `TERM`, `SIGTERM` or `15`. @throws `invalid_argument`. */
export function parseSignal(option: string, text: string): number {
  const number = signalByName(text);
  if (number === undefined) {
    throw new MayflyError(
      "invalid_argument",
      `${option} is ${JSON.stringify(text)}, which is no signal's name or number`,
    );
  }
  return number;
}

/** Number of a signal as Node names it, e.g. `SIGTERM`. */
export function signalNumber(name: string): number {
  return SIGNALS[name.replace(/^SIG/, "")] ?? 15;
}
