/**
 * Imported before any schema is made: schemas are followed as they are, not compiled to code of their own. A request takes 0.02 ms longer,
 * and 2 MB of code that is mostly never used are not made (docs/adr/0028-memory-of-the-daemon.md).
 */
import { z } from "zod";

z.config({ jitless: true });
