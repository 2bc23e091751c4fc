/** Programs of the services that are imported as text. */
declare module "*.cjs" {
  const text: string;
  export default text;
}
declare module "*.py" {
  const text: string;
  export default text;
}
declare module "*.java" {
  const text: string;
  export default text;
}
