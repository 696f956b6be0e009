/** What a suite plays on: a deployment and a browser for all of its tests, and people who are gone after each. */

import { after, afterEach, before, test } from 'node:test';
import { Deployment } from './deployment.js';
import { launch, Person } from './person.js';

/** The whole of one test; every wait inside is bounded more tightly. */
export const TEST_TIMEOUT_MS = 300_000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);

/** Of the screenshots. */
export const PICTURE = { width: 1280, height: 720 };

/**
 * To be called inside of `describe`. The deployment and the browser are there once the tests run.
 * @param {'embedded' | 'cluster'} shape
 */
export function stage(shape) {
  /** @type {Person[]} */
  const people = [];
  const on = {
    deployment: /** @type {Deployment} */ (/** @type {unknown} */ (undefined)),
    browser: /** @type {import('playwright-core').Browser} */ (/** @type {unknown} */ (undefined)),
    people,

    /** Somebody with a window of their own, not yet in any room. @param {string} name @param {Parameters<typeof Person.open>[2]} [options] */
    async person(name, options) {
      const opened = await Person.open(on.browser, name, options);
      people.push(opened);
      return opened;
    },

    /** A test with a name and the time that it may take. @param {string} name @param {(context: import('node:test').TestContext) => Promise<void>} body */
    scenario(name, body) {
      test(name, { timeout: TEST_TIMEOUT_MS }, body);
    },
  };
  before(async () => {
    [on.deployment, on.browser] = await Promise.all([Deployment.start(shape), launch()]);
  });
  after(async () => {
    await on.browser?.close();
    await on.deployment?.stop();
  });
  afterEach(() => Promise.all(people.splice(0).map((person) => person.close())));
  return on;
}
