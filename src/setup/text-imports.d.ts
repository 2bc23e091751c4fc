/** Files that are imported as text, see guest-sources.gen.ts. */
declare module "*.c" {
  const text: string;
  export default text;
}
declare module "*.h" {
  const text: string;
  export default text;
}
declare module "*.list" {
  const text: string;
  export default text;
}
declare module "*/Makefile" {
  const text: string;
  export default text;
}
declare module "*.config" {
  const text: string;
  export default text;
}
declare module "*.mak" {
  const text: string;
  export default text;
}
