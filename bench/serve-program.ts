/** `mayfly bench serve` and nothing else, as src/cli/daemon-program.ts is `mayfly daemon` and nothing else. */
import { serve } from "./serve.ts";

process.exit(await serve(process.argv.slice(process.argv.indexOf("serve") + 1)));
