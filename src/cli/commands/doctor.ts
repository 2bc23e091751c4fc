/** `mayfly doctor`. */
import { stateDirectory } from "../../sys/directories.ts";
import { print } from "../../sys/standard-io.ts";
import { examine, type Finding } from "../examination.ts";
import { oneLine, printJson } from "../output.ts";
import { progressLine } from "../progress.ts";
import { defineCommand } from "../specification.ts";

const MARKS: Readonly<Record<Finding["state"], string>> = {
  ok: "[ok]",
  note: "[--]",
  warning: "[!!]",
  missing: "[NO]",
};

export const command = defineCommand({
  description: `Say what was found on this host, what is missing, and the command that puts it right. Where no daemon runs, a guest is booted
under each accelerator to see whether it works, which takes some seconds. Ends with 1 if something required is missing.`,
  operands: [],
  options: {
    "no-probe": { kind: "flag", summary: "Boot no guest" },
    profiles: {
      kind: "flag",
      summary: "Measure instead what a VM costs, by device profile and QEMU: a minute of starts",
    },
  },
  examples: [
    ["mayfly doctor", "look at everything"],
    ["sudo mayfly doctor --profiles", "Debian's QEMU beside the lean one"],
  ],
  async run({ options, global }) {
    if (options.profiles) return showProfiles(global.json);
    const findings = await examine({ global, probe: !options["no-probe"] });
    const healthy = findings.every(({ state }) => state !== "missing");
    if (global.json) await printJson({ healthy, findings });
    else await print(describe(findings));
    return healthy ? 0 : 1;
  },
});

async function showProfiles(json: boolean): Promise<number> {
  const { formatProfiles, measureProfiles } = await import("../profiles.ts");
  const line = progressLine();
  const costs = await measureProfiles(stateDirectory(), (step) => line.show(step)).finally(() => line.clear());
  if (json) await printJson({ profiles: costs });
  else await print(formatProfiles(costs));
  return 0;
}

function describe(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.flatMap(({ name, state, detail, remedy }) => [
    `${MARKS[state]} ${name.padEnd(width)}  ${oneLine(detail)}`,
    ...(remedy === undefined ? [] : [`${" ".repeat(width + 7)}-> ${remedy}`]),
  ]);
  const missing = findings.filter(({ state }) => state === "missing").length;
  const verdict =
    missing === 0
      ? "Nothing that is required is missing."
      : `${missing} required ${missing === 1 ? "thing is" : "things are"} missing.`;
  return `${lines.join("\n")}\n${verdict}\n`;
}
