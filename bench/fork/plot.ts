/** A picture of curves as SVG: panels below each other, both axes logarithmic, one legend. Plain text, nothing else is needed. */

/** A point: what was varied, and what was measured. */
export interface Point {
  x: number;
  y: number;
}

/** Curves over one variable. */
export interface Panel {
  title: string;
  /** What the horizontal axis counts. */
  unit: string;
  /** What the vertical axis counts; milliseconds without it. */
  scale?: "MB";
  lines: readonly { label: string; points: readonly Point[] }[];
}

const WIDTH = 760;
const PANEL_HEIGHT = 300;
const MARGIN = { left: 70, right: 220, top: 40, bottom: 50 };
/** Told apart also by who sees no colours: they differ in lightness, and marks differ in shape. */
const COLOURS = ["#0b5fa5", "#3f9be0", "#0a7d57", "#b3261e", "#e8796c", "#6b4ea0", "#b49be0"];
const BACKGROUND = "#ffffff";
const INK = "#222222";
const GRID = "#dddddd";

/** The whole picture. Zero of a variable stands at the left edge, as `0`. */
export function plotSvg(panels: readonly Panel[]): string {
  const labels = [...new Set(panels.flatMap(({ lines }) => lines.map(({ label }) => label)))];
  const height = panels.length * PANEL_HEIGHT;
  const body = panels.map((panel, index) => panelSvg(panel, labels, index * PANEL_HEIGHT)).join("");
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12" fill="${INK}">
<title>${escaped(panels.map(({ title }) => title).join("; "))}</title>
<rect width="${WIDTH}" height="${height}" fill="${BACKGROUND}"/>
${body}</svg>
`;
}

/** A logarithmic axis from `low` to `high` drawn from `from` to `to`. */
interface Axis {
  low: number;
  high: number;
  at(value: number): number;
}

function axis(low: number, high: number, from: number, to: number): Axis {
  const span = Math.log(high / low) || 1;
  return { low, high, at: (value) => from + ((to - from) * Math.log(Math.max(value, low) / low)) / span };
}

function panelSvg({ title, unit, scale, lines }: Panel, labels: readonly string[], top: number): string {
  const points = lines.flatMap((line) => line.points);
  const xs = [...new Set(points.map(({ x }) => x))].toSorted((a, b) => a - b);
  const positive = xs.filter((x) => x > 0);
  const [left, right] = [MARGIN.left, WIDTH - MARGIN.right];
  const [upper, lower] = [top + MARGIN.top, top + PANEL_HEIGHT - MARGIN.bottom];
  // Zero has no logarithm: it takes the place of a quarter of the smallest.
  const leastX = (positive[0] ?? 1) / (xs[0] === 0 ? 4 : 1);
  const x = axis(leastX, positive.at(-1) ?? leastX, left, right);
  const ys = points.map((point) => point.y);
  const y = axis(
    10 ** Math.floor(Math.log10(Math.min(...ys, 1))),
    10 ** Math.ceil(Math.log10(Math.max(...ys, 10))),
    lower,
    upper,
  );
  const parts = [
    text(left, top + 22, title, 'font-weight="bold"'),
    ...decades(y).map(
      (value) =>
        grid(left, right, y.at(value)) + text(left - 8, y.at(value) + 4, scaled(value, scale), 'text-anchor="end"'),
    ),
    ...xs.map((value) => text(x.at(value), lower + 18, String(value), 'text-anchor="middle"')),
    text((left + right) / 2, lower + 38, unit, 'text-anchor="middle"'),
    ...lines.map(({ label, points: own }) => curve(own, x, y, labels.indexOf(label))),
    ...lines.map(({ label }, index) => legend(right + 16, upper + 10 + index * 20, label, labels.indexOf(label))),
  ];
  return parts.map((part) => `${part}\n`).join("");
}

/** The powers of ten of an axis. */
function decades({ low, high }: Axis): number[] {
  const count = Math.round(Math.log10(high / low));
  return Array.from({ length: count + 1 }, (_, index) => low * 10 ** index);
}

function curve(points: readonly Point[], x: Axis, y: Axis, index: number): string {
  const at = points.map((point) => [x.at(point.x), y.at(point.y)] as const);
  const path = at.map(([px, py]) => `${digits(px)},${digits(py)}`).join(" ");
  const marks = at.map(([px, py]) => mark(px, py, index)).join("");
  return `<polyline points="${path}" fill="none" stroke="${colourOf(index)}" stroke-width="2"/>${marks}`;
}

function legend(x: number, y: number, label: string, index: number): string {
  const line = `<line x1="${x}" y1="${y}" x2="${x + 22}" y2="${y}" stroke="${colourOf(index)}" stroke-width="2"/>`;
  return line + mark(x + 11, y, index) + text(x + 30, y + 4, label);
}

/** Circles, squares and triangles in turn. */
function mark(x: number, y: number, index: number): string {
  const [px, py, fill] = [digits(x), digits(y), `fill="${colourOf(index)}"`];
  if (index % 3 === 0) return `<circle cx="${px}" cy="${py}" r="4" ${fill}/>`;
  if (index % 3 === 1) return `<rect x="${digits(x - 3.5)}" y="${digits(y - 3.5)}" width="7" height="7" ${fill}/>`;
  return `<polygon points="${px},${digits(y - 5)} ${digits(x - 4.5)},${digits(y + 4)} ${digits(x + 4.5)},${digits(y + 4)}" ${fill}/>`;
}

function grid(left: number, right: number, y: number): string {
  return `<line x1="${left}" y1="${digits(y)}" x2="${right}" y2="${digits(y)}" stroke="${GRID}"/>`;
}

function text(x: number, y: number, content: string, attributes = ""): string {
  const safe = escaped(content);
  return `<text x="${digits(x)}" y="${digits(y)}"${attributes === "" ? "" : ` ${attributes}`}>${safe}</text>`;
}

function scaled(value: number, scale: Panel["scale"]): string {
  if (scale === "MB") return value >= 1000 ? `${value / 1000} GB` : `${value} MB`;
  return value >= 1000 ? `${value / 1000} s` : `${value} ms`;
}

function colourOf(index: number): string {
  return COLOURS[index % COLOURS.length] ?? INK;
}

function digits(value: number): string {
  return String(Number(value.toFixed(1)));
}

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
