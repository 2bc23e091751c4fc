/** Builds that several ask for at once. */
import { expect, test } from "bun:test";
import { rejection } from "../../tests/support/fake-peer.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type Builder, Builds } from "./builds.ts";

/** Stands for a template: nothing looks into it. */
const made = (id: string) => ({ id: `tpl_${id}` }) as LoadedTemplate;

/** A builder whose builds the test ends; a cancelled one ends by itself. */
class Workshop {
  readonly #second = Promise.withResolvers<void>();
  readonly second = this.#second.promise;
  readonly begun: { finish: (template: LoadedTemplate) => void; fail: (error: Error) => void }[] = [];

  readonly build: Builder = (_onStep, deadline) => {
    const { promise, resolve, reject } = Promise.withResolvers<LoadedTemplate>();
    this.begun.push({ finish: resolve, fail: reject });
    if (this.begun.length === 2) this.#second.resolve();
    return deadline.race(promise, "the build");
  };
}

const ask = (builds: Builds, { build }: Workshop, deadline = Deadline.after(1000)) =>
  builds.run("key", "what", build, () => undefined, deadline);

test("who asks for what is being built gets that one", async () => {
  const [builds, workshop] = [new Builds(), new Workshop()];
  const both = [ask(builds, workshop), ask(builds, workshop)];
  expect(builds.keys).toEqual(["key"]);
  workshop.begun[0]?.finish(made("one"));
  expect((await Promise.all(both)).map(({ id }) => id)).toEqual(["tpl_one", "tpl_one"]);
  expect([workshop.begun.length, builds.keys]).toEqual([1, []]);
});

test("a failure is everybody's", async () => {
  const [builds, workshop] = [new Builds(), new Workshop()];
  const both = [ask(builds, workshop), ask(builds, workshop)].map((asked) => rejection(asked));
  workshop.begun[0]?.fail(new MayflyError("application_not_ready", "never"));
  expect((await Promise.all(both)).map(({ code }) => code)).toEqual(["application_not_ready", "application_not_ready"]);
  expect(workshop.begun.length).toBe(1);
});

test("who has begun one and gives up leaves it to those who wait for it", async () => {
  const [builds, workshop] = [new Builds(), new Workshop()];
  const abort = new AbortController();
  const first = rejection(ask(builds, workshop, Deadline.after(1000, abort.signal)));
  const others = [ask(builds, workshop), ask(builds, workshop)];
  abort.abort();
  expect((await first).code).toBe("cancelled");
  await workshop.second;
  workshop.begun[1]?.finish(made("two"));
  expect((await Promise.all(others)).map(({ id }) => id)).toEqual(["tpl_two", "tpl_two"]);
  expect(workshop.begun.length).toBe(2);
});

test("the time of who has begun it is not that of the others", async () => {
  const [builds, workshop] = [new Builds(), new Workshop()];
  const first = rejection(ask(builds, workshop, Deadline.after(5)));
  const other = ask(builds, workshop);
  expect((await first).code).toBe("deadline_exceeded");
  await workshop.second;
  workshop.begun[1]?.finish(made("two"));
  expect((await other).id).toBe("tpl_two");
});

test("closing ends all, and nobody begins again", async () => {
  const [builds, workshop] = [new Builds(), new Workshop()];
  const both = [ask(builds, workshop), ask(builds, workshop)].map((asked) => rejection(asked));
  await builds.close();
  expect((await Promise.all(both)).map(({ code }) => code)).toEqual(["cancelled", "cancelled"]);
  expect(workshop.begun.length).toBe(1);
});
