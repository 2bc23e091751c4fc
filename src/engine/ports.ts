/** TCP ports of the host that lead into one VM: bound before it starts, joined to its guest once that is ready. */
import type { AgentClient } from "../agent/client.ts";
import type { PortMapping, PublishedPort, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { PortForwarder } from "../network/port-forwarder.ts";
import type { Holding } from "./holdings.ts";

/** Where a mapping listens that names no address, as docker's do: on all of the host's. */
const ANY_ADDRESS = "0.0.0.0";

/** The forwarded ports of one VM. */
export class Ports implements Holding {
  readonly #forwarders: PortForwarder[] = [];
  #ready = Promise.withResolvers<void>();
  #agent: AgentClient | undefined;
  #wake: (() => void) | undefined;

  /**
   * Listens on all of them at once; connections wait until {@link open}.
   * @throws `port_in_use`, `invalid_argument`; nothing is bound then.
   */
  constructor(mappings: readonly PortMapping[]) {
    this.#ready.promise.catch(() => undefined);
    try {
      for (const mapping of mappings) this.#forwarders.push(this.#bind(mapping));
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** As they are, with the ports that were chosen. */
  get published(): PublishedPort[] {
    return this.#forwarders.map(({ address, port, guestPort }) => ({ hostIp: address, hostPort: port, guestPort }));
  }

  /** From now on connections go into the guest, those that wait first. */
  open(agent: AgentClient): void {
    this.#agent = agent;
    this.#wake = undefined;
    this.#ready.resolve();
  }

  /** From now on connections wait, the first of them wakes the VM up; those that are open were reset with the agent's. */
  park(wake: () => void): void {
    // Those that waited for a VM that has not come back go.
    if (this.#agent === undefined) this.#ready.reject(new MayflyError("cancelled", "The VM has not come back"));
    this.#agent = undefined;
    this.#ready = Promise.withResolvers<void>();
    this.#ready.promise.catch(() => undefined);
    this.#wake = wake;
  }

  release(): void {
    this.#ready.reject(new MayflyError("cancelled", "The VM has ended"));
    for (const forwarder of this.#forwarders.splice(0)) forwarder.close();
  }

  /** The next daemon listens again. */
  letGo(): void {
    this.release();
  }

  #whenReady(): Promise<void> | undefined {
    if (this.#agent !== undefined) return undefined;
    this.#wake?.();
    return this.#ready.promise;
  }

  #bind({ hostIp = ANY_ADDRESS, hostPort, guestPort }: PortMapping): PortForwarder {
    return new PortForwarder(
      { address: hostIp, port: hostPort, guestPort },
      (target, events) => {
        if (this.#agent === undefined) throw new MayflyError("internal", "A connection was let in too early");
        return this.#agent.connect(target, events);
      },
      { onConnection: () => this.#whenReady() },
    );
  }
}

/**
 * Binds ports for what is made of them; they are free again if that fails.
 * @param vms whose ports these may be.
 * @throws `port_in_use` naming the VM or the process that has one, `invalid_argument`, and what `make` throws.
 */
export function withPorts<T>(vms: readonly Vm[], mappings: readonly PortMapping[], make: (ports: Ports) => T): T {
  const ports = bind(vms, mappings);
  try {
    return make(ports);
  } catch (error) {
    ports.release();
    throw error;
  }
}

function bind(vms: readonly Vm[], mappings: readonly PortMapping[]): Ports {
  try {
    return new Ports(mappings);
  } catch (error) {
    if (!(error instanceof MayflyError) || error.code !== "port_in_use") throw error;
    const { address, port } = error.details;
    const publishes = ({ hostIp, hostPort }: PublishedPort) =>
      hostPort === port && (hostIp === address || isAny(hostIp) || isAny(String(address)));
    const place = String(address).includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
    if (mappings.filter(({ hostIp = ANY_ADDRESS, ...rest }) => publishes({ hostIp, ...rest })).length > 1) {
      throw new MayflyError("invalid_argument", `Cannot publish ${place} twice`, { cause: error });
    }
    const holder = vms.find((vm) => vm.finishedAt === null && vm.ports.some(publishes));
    if (holder === undefined) throw error;
    throw new MayflyError("port_in_use", `Cannot listen on ${place}: VM ${holder.name} publishes it`, {
      details: { address: address ?? "", port: port ?? 0, vm: holder.id },
      cause: error,
    });
  }
}

function isAny(address: string): boolean {
  return address === ANY_ADDRESS || address === "::";
}
