/** The web services that the scenario `app` measures: each a Debian root file system, a program, and an image configuration. */
import java from "./services/Service.java" with { type: "text" };
import node from "./services/service.cjs" with { type: "text" };
import python from "./services/service.py" with { type: "text" };

/** Runtimes that there is a service for. */
export const APPS = ["node", "python", "java"] as const;
export type App = (typeof APPS)[number];

/** Where a service listens in its image, unless its environment has a `PORT`. */
export const SERVICE_PORT = 8080;

/** How a service's image is made and run. */
export interface Recipe {
  /** Debian packages besides the essential ones; Debian 12 has Node 18, Python 3.11 and OpenJDK 17 under these names. */
  packages: readonly string[];
  /** Text of the program, as the file of this name in {@link SERVICE_DIRECTORY}. */
  source: { name: string; text: string };
  /** Words that compile it there, in the image's root; what is run then is in the same directory. */
  compile?: readonly string[];
  entrypoint: readonly string[];
  /** Memory of a VM that runs it. */
  memoryMiB: number;
  /** Requests that it answers before it is saved: compilers at run time want to have seen the page more often than an interpreter. */
  warmUps: number;
}

/** Directory of the program in its image. */
export const SERVICE_DIRECTORY = "/srv/service";

/** One recipe to each app. */
export const RECIPES: Readonly<Record<App, Recipe>> = {
  node: {
    packages: ["nodejs"],
    source: { name: "service.cjs", text: node },
    entrypoint: ["node", "service.cjs"],
    memoryMiB: 256,
    warmUps: 300,
  },
  python: {
    packages: ["python3"],
    source: { name: "service.py", text: python },
    entrypoint: ["python3", "service.py"],
    memoryMiB: 128,
    warmUps: 50,
  },
  java: {
    packages: ["default-jre-headless"],
    source: { name: "Service.java", text: java },
    // The headless runtime has the compiler's module, without the command for it.
    compile: ["java", "-m", "jdk.compiler/com.sun.tools.javac.Main", "-d", ".", "Service.java"],
    entrypoint: ["java", "Service"],
    memoryMiB: 512,
    warmUps: 1000,
  },
};
