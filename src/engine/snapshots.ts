/** Checkpoints, forks and lineage of one state directory; see `snapshot-interface.ts`. */
import type { ForkRequest, ForkResult } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import type { EngineParts } from "./engine.ts";
import { forkVm } from "./fork.ts";
import type { Gate } from "./gate.ts";
import type { SnapshotEngine } from "./snapshot-interface.ts";

/** The {@link SnapshotEngine} over QEMU processes of this host. */
export class LocalSnapshots implements SnapshotEngine {
  constructor(
    private readonly parts: EngineParts,
    private readonly gate: Gate,
  ) {}

  fork = (ref: string, request: ForkRequest, deadline: Deadline): Promise<ForkResult> =>
    forkVm(this.parts, this.gate, ref, request, deadline);

  checkpoint = async () => missing();
  resume = async () => missing();
  restore = async () => missing();
  list = () => [];
  get = () => missing();
  remove = async () => missing();
  prune = async () => missing();
  verify = async () => missing();
  diff = async () => missing();
  export = async () => missing();
  import = async () => missing();
  promote = async () => missing();
  tree = async () => missing();
}

function missing(): never {
  throw new MayflyError("internal", "This engine only forks");
}
