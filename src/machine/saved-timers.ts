/**
 * The timer of each local APIC in a device state that QEMU has saved, and a later moment for it.
 *
 * A device state is `"QEVM"`, a version, and sections: 04, its number (4 bytes), the length of a name, the name, instance and
 * version (4 bytes each), fields without any lengths, 7e, the number again; all big-endian (QEMU's migration/savevm.c, hw/intc/apic_common.c,
 * system/cpu-timers.c). What does not look like this to the byte is left as it is: a clone is then a little slower, and nothing else.
 */

const SECTION = 0x04;
const FOOTER = 0x7e;

/** A section's name, version and the bytes of its fields. */
interface Section {
  name: string;
  version: number;
  length: number;
}

const CLOCK: Section = { name: "timer", version: 2, length: 24 };
/** Of CLOCK: QEMU's virtual clock in ns, at which the guest was stopped. */
const CLOCK_NOW = 16;

const APIC: Section = { name: "apic", version: 3, length: 181 };
/** Of APIC: LVT entry of its timer, after the base, five bytes of ids and modes, SPIV, two bytes of modes, ISR, TMR and IRR. */
const APIC_TIMER_ENTRY = 4 + 3 + 4 + 2 + 3 * 32;
/** Of APIC: when its timer fires next, by the virtual clock in ns, as the APIC and as QEMU's timer has it; the latter is -1 when none is set. */
const APIC_NEXT = APIC.length - 16;
const APIC_EXPIRY = APIC.length - 8;
const PERIODIC = 1 << 17;

/**
 * A device state with each one-shot timer of a local APIC not before `delayNs` after the guest goes on: its tick comes when the guest has answered.
 * @returns the same bytes if there is nothing to change; otherwise a copy.
 */
export function withTimersDelayed(state: Uint8Array, delayNs: bigint): Uint8Array {
  const saved = Buffer.from(state.buffer, state.byteOffset, state.byteLength);
  const clock = sections(saved, CLOCK).next().value;
  if (clock === undefined) return state;
  const earliest = BigInt.asIntN(64, saved.readBigInt64BE(clock + CLOCK_NOW) + delayNs);
  let changed: Buffer | undefined;
  for (const apic of sections(saved, APIC)) {
    const isPeriodic = (saved.readUInt32BE(apic + APIC_TIMER_ENTRY) & PERIODIC) !== 0;
    const expiry = saved.readBigInt64BE(apic + APIC_EXPIRY);
    if (isPeriodic || expiry === -1n || expiry >= earliest) continue;
    changed ??= Buffer.from(saved);
    changed.writeBigInt64BE(earliest, apic + APIC_NEXT);
    changed.writeBigInt64BE(earliest, apic + APIC_EXPIRY);
  }
  return changed ?? state;
}

/** Where the fields of each section of a kind begin: one for each CPU, or one. */
function* sections(saved: Buffer, { name, version, length }: Section): Generator<number, undefined> {
  const title = Buffer.concat([Buffer.of(name.length), Buffer.from(name)]);
  for (let at = saved.indexOf(title); at !== -1; at = saved.indexOf(title, at + 1)) {
    const number = at - 4;
    const fields = at + title.length + 8;
    const end = fields + length;
    if (number < 1 || end + 5 > saved.length) continue;
    const isWhole =
      saved[number - 1] === SECTION &&
      saved.readUInt32BE(fields - 4) === version &&
      saved[end] === FOOTER &&
      saved.readUInt32BE(end + 1) === saved.readUInt32BE(number);
    if (isWhole) yield fields;
  }
  return undefined;
}
