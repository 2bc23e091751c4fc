/** `mayfly snapshot verify`. */
import { usageError } from "../arguments.ts";
import { openClient } from "../client.ts";
import { defineCommand } from "../specification.ts";
import { verifyEach } from "../verification.ts";

export const command = defineCommand({
  description: "Read snapshots whole and check them against their checksums. Ends with 1 if any is damaged.",
  operands: [{ name: "SNAPSHOT", kind: "snapshot", many: true, optional: true }],
  options: { all: { kind: "flag", short: "a", summary: "All snapshots" } },
  examples: [
    ["mayfly snapshot verify --all", "all snapshots"],
    ["mayfly snapshot verify before-update", "one"],
  ],
  async run({ options, operands, global }) {
    if (options.all === operands.length > 0) {
      throw usageError(
        "mayfly snapshot verify",
        options.all ? "--all and SNAPSHOT exclude each other" : "SNAPSHOT is missing",
      );
    }
    const { snapshots } = openClient(global);
    const refs = options.all ? (await snapshots.list()).map(({ id }) => id) : operands;
    return verifyEach(refs, global.json, (ref) => snapshots.verify(ref));
  },
});
