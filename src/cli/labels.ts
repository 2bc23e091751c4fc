/** Labels as they are given on a command line: `KEY=VALUE`, or `KEY` alone. */

/** Labels by key; of two with the same key the later one. */
export function parseLabels(labels: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    labels.map((label) => {
      const equals = label.indexOf("=");
      return equals < 0 ? [label, ""] : [label.slice(0, equals), label.slice(equals + 1)];
    }),
  );
}
