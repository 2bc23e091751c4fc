/** Schemas of query parameters, which come as text. */
import { z } from "zod";

/** A switch: `?force`, `?force=true`, `?force=1`; absent, `false` and `0` mean no. */
export const flag = z
  .enum(["", "true", "false", "1", "0"])
  .default("false")
  .transform((text) => text === "" || text === "true" || text === "1");

/** A whole number from `least` to `most`. */
export function number(least: number, most: number) {
  return z
    .string()
    .regex(/^\d{1,15}$/, "must be a whole number")
    .transform(Number)
    .refine((value) => value >= least && value <= most, `must be from ${least} to ${most}`);
}

/** Permission bits in octal, e.g. `0644`. */
export function mode(otherwise: string) {
  return z
    .string()
    .regex(/^[0-7]{1,5}$/, "must be octal, such as 0644")
    .default(otherwise)
    .transform((text) => Number.parseInt(text, 8));
}

/** An absolute path in a guest. */
export const guestPath = z
  .string()
  .max(4095)
  .refine((path) => path.startsWith("/") && !path.includes("\0"), "must be an absolute path without NUL");
