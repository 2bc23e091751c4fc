/** For tests: a guest of a few real-mode instructions, in place of the firmware, which runs where no kernel does. */

/** What it prints on its serial port before it halts for good. */
export const FLAT_GUEST_SAYS = "flat guest runs\n";

const IMAGE_BYTES = 65_536;
/** Where the processor begins, 16 bytes below the end (Intel SDM volume 3, section 9.1.4). */
const RESET_VECTOR = IMAGE_BYTES - 16;
const SERIAL_PORT = 0x3f8;

/** The image for QEMU's `-bios`. */
export const FLAT_GUEST: Uint8Array = build();

function build(): Uint8Array {
  const image = new Uint8Array(IMAGE_BYTES);
  const code = [0xba, SERIAL_PORT & 0xff, SERIAL_PORT >> 8]; // mov dx, port
  for (const letter of Buffer.from(FLAT_GUEST_SAYS)) code.push(0xb0, letter, 0xee); // mov al, letter; out dx, al
  code.push(0xfa, 0xf4, 0xeb, 0xfd); // cli; hlt; jmp to the hlt
  image.set(code);
  image.set([0xea, 0x00, 0x00, 0x00, 0xf0], RESET_VECTOR); // jmp f000:0000
  return image;
}
