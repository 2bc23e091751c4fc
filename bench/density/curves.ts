/** How memory and start time grow with the number of instances: a crowd that is started step by step. */

import { nowMs } from "../../src/sys/deadline.ts";
import type { Panel, Point } from "../fork/plot.ts";
import { pause } from "../pace.ts";
import type { Listener } from "../prepare.ts";
import { percentile } from "../statistics.ts";
import type { Crowd } from "./crowd.ts";
import { ownBytes } from "./group-files.ts";
import { oneFirst, settle } from "./measure.ts";
import { several } from "./several.ts";

const POINTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000];
/** The last instances before a point are started one after another: the median of their times is the point's. */
const TIMED = 5;
/** Before them, so that they do not pay for those before. */
const QUIET_MS = 1000;
const MB = 1e6;
/** Less is not told apart from nothing, which a logarithmic axis has no place for. */
const LEAST_BYTES = 1e4;

/** What was measured of one crowd, by the number of its instances. */
export interface Curve {
  label: string;
  /** Megabytes of each. */
  memory: Point[];
  /** Milliseconds of a start. */
  start: Point[];
}

/** Numbers of instances at which points lie. */
export function pointsUpTo(count: number): number[] {
  return [...new Set([...POINTS.filter((point) => point < count), count])];
}

/** Starts a crowd step by step. Its instances are removed with its resources. */
export async function measureCurve(
  label: string,
  crowd: Crowd,
  { count, concurrency }: { count: number; concurrency: number },
  { signal, progress }: Listener,
): Promise<Curve> {
  const curve: Curve = { label, memory: [], start: [] };
  await oneFirst(crowd, signal);
  const before = ownBytes(crowd.group.memory());
  let started = 0;
  for (const point of pointsUpTo(count)) {
    progress(`${label}: picture, ${point} of ${count}`);
    const timed = Math.min(TIMED, point - started);
    await several(Array(point - started - timed).keys(), concurrency, async () => void (await crowd.start(signal)));
    await pause(QUIET_MS, signal);
    const times: number[] = [];
    for (let index = 0; index < timed; index += 1) {
      const beginMs = nowMs();
      await crowd.start(signal);
      times.push(nowMs() - beginMs);
    }
    started = point;
    await settle(crowd, signal);
    const each = (ownBytes(crowd.group.memory()) - before) / point;
    curve.memory.push({ x: point, y: Math.max(each, LEAST_BYTES) / MB });
    curve.start.push({
      x: point,
      y: percentile(
        times.toSorted((a, b) => a - b),
        50,
      ),
    });
  }
  return curve;
}

/** The two pictures of all crowds. */
export function panelsOf(curves: readonly Curve[]): Panel[] {
  if (curves.length === 0) return [];
  const unit = "instances that are there";
  const lines = (of: (curve: Curve) => Point[]) => curves.map((curve) => ({ label: curve.label, points: of(curve) }));
  return [
    { title: "Memory of an idle instance", unit, scale: "MB", lines: lines(({ memory }) => memory) },
    { title: "Start of one more", unit, lines: lines(({ start }) => start) },
  ];
}
