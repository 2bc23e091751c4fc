/** Names for VMs that were given none: an adjective and an animal, then a number when taken. */
const ADJECTIVES =
  "amber brisk calm clever coral crisp dusky eager early fleet fond gentle glad golden keen light lively lucid mellow nimble pale plain proud quick quiet rapid silver sleek spry still swift tidy vivid warm wild wise young".split(
    " ",
  );
const INSECTS =
  "ant bee beetle bumblebee caddisfly cicada cricket damselfly dragonfly firefly gnat grasshopper hornet hoverfly lacewing ladybird locust mantis mayfly midge mosquito moth sawfly skipper stonefly termite wasp weevil".split(
    " ",
  );

/** A free name. `random` gives numbers from 0 to 1. */
export function freeName(taken: (name: string) => boolean, random: () => number = Math.random): string {
  const pick = (words: readonly string[]) => words[Math.floor(random() * words.length)] ?? "mayfly";
  for (let attempt = 0; attempt < 8; attempt++) {
    const name = `${pick(ADJECTIVES)}-${pick(INSECTS)}`;
    if (!taken(name)) return name;
  }
  for (let number = 2; ; number++) {
    const name = `${pick(ADJECTIVES)}-${pick(INSECTS)}-${number}`;
    if (!taken(name)) return name;
  }
}
