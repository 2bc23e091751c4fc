/** What an image says of the processes in it (OCI image-spec "config", with docker's additions), made into our own words. */

import { z } from "zod";
import type { HealthCheck } from "../contract/container.ts";
import { MayflyError } from "../contract/errors.ts";
import type { ImageConfig } from "../contract/image.ts";

/** Text that a guest can be given: a NUL ends it there. */
const text = z
  .string()
  .max(131_072)
  .refine((value) => !value.includes("\0"), "has a NUL in it");
const words = z.array(text).max(4096).nullish();
const names = z.record(text, z.unknown()).nullish();
const nanoseconds = z.number().nullish();

/** The part that is read; whatever else stands there is kept in the document only. */
export const RawConfig = z.object({
  User: text.nullish(),
  ExposedPorts: names,
  Env: words,
  Entrypoint: words,
  Cmd: words,
  Volumes: names,
  WorkingDir: text.nullish(),
  Labels: z.record(text, text).nullish(),
  StopSignal: text.nullish(),
  Healthcheck: z
    .object({
      Test: words,
      Interval: nanoseconds,
      Timeout: nanoseconds,
      StartPeriod: nanoseconds,
      StartInterval: nanoseconds,
      Retries: z.int().nullish(),
    })
    .nullish(),
});
type RawConfig = z.infer<typeof RawConfig>;

const MAX_ENTRIES = 4096;

/**
 * The configuration as it is honoured; what an image does not say is absent.
 * @throws MayflyError `image_invalid` for more ports, volumes or labels than anybody has.
 */
export function honouredConfig(raw: RawConfig, what: string): ImageConfig {
  const config: ImageConfig = {};
  if (raw.Entrypoint?.length) config.entrypoint = raw.Entrypoint;
  if (raw.Cmd?.length) config.cmd = raw.Cmd;
  if (raw.Env?.length) config.env = raw.Env;
  if (raw.WorkingDir) config.workingDir = raw.WorkingDir;
  if (raw.User) config.user = raw.User;
  if (raw.StopSignal) config.stopSignal = raw.StopSignal;
  const [ports, volumes] = [Object.keys(raw.ExposedPorts ?? {}), Object.keys(raw.Volumes ?? {})];
  const labels = raw.Labels ?? {};
  for (const [name, list] of Object.entries({ ports, volumes, labels: Object.keys(labels) })) {
    if (list.length <= MAX_ENTRIES) continue;
    throw new MayflyError(
      "image_invalid",
      `Cannot use ${what}: it has ${list.length} ${name}, the limit is ${MAX_ENTRIES}`,
    );
  }
  if (ports.length > 0) config.exposedPorts = ports;
  if (volumes.length > 0) config.volumes = volumes;
  if (Object.keys(labels).length > 0) config.labels = labels;
  const healthCheck = healthCheckOf(raw.Healthcheck);
  if (healthCheck !== undefined) config.healthCheck = healthCheck;
  return config;
}

/** Nothing to test is no check; a time of 0 means the default. */
function healthCheckOf(raw: RawConfig["Healthcheck"]): HealthCheck | undefined {
  if (!raw?.Test?.length) return undefined;
  const check: HealthCheck = { test: raw.Test };
  const times = {
    intervalMs: raw.Interval,
    timeoutMs: raw.Timeout,
    startPeriodMs: raw.StartPeriod,
    startIntervalMs: raw.StartInterval,
  };
  for (const [name, value] of Object.entries(times) as [keyof typeof times, number | null | undefined][]) {
    if (value && value > 0) check[name] = Math.max(1, Math.round(value / 1e6));
  }
  if (raw.Retries && raw.Retries > 0) check.retries = raw.Retries;
  return check;
}
