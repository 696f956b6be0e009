/** What people in a room notice when things break, in any deployment shape: run by embedded.test.js and cluster.test.js. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventually } from './support/eventually.js';
import { killHost, restartAll } from './support/failover.js';
import { installMeters, METERED, readGapMeter } from './support/meters.js';
import { nothingNoticed, startNoticing } from './support/notice.js';
import { allSeeAndHear } from './support/person.js';
import { screenshot } from './support/screenshots.js';
import { PICTURE, stage, TEST_TIMEOUT_MS } from './support/stage.js';

/** @typedef {import('./support/person.js').Person} Person */

/** What a busy machine and a debug build may take. What a calm machine takes is measured by bench/failover. */
const RECOVERY_LIMIT_MS = 20_000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);
const GAP_LIMIT_MS = 1000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);

/** @param {number[]} values */
const rounded = (values) => values.map((value) => Math.round(value)).join(', ');

/** @param {'embedded' | 'cluster'} shape */
export function failures(shape) {
  describe(`failures, ${shape}`, { timeout: 4 * TEST_TIMEOUT_MS }, () => {
    const on = stage(shape);
    const { people } = on;

    /** Three people in a room, with meters. */
    async function gather() {
      const { address } = await on.deployment.room();
      for (const name of ['Ada', 'Ben', 'Eve']) {
        const person = await on.person(name, name === 'Ada' ? { ...METERED, viewport: PICTURE } : METERED);
        await installMeters(person);
        await person.join(address);
      }
      await allSeeAndHear(people);
      return people;
    }

    /** Requests that failed are part of it; an exception in the page is not. */
    function nothingThrown() {
      for (const { name, complaints } of people) {
        assert.deepEqual(complaints.filter((complaint) => complaint.startsWith('page:')), [], `${name}'s page`);
      }
    }

    /** Until the SDK has given up: the person is told, and the way back is at hand. @param {Person} person @param {RegExp} why */
    async function seesItGivenUp(person, why) {
      const { page } = person;
      const banner = page.locator('[data-testid=banner]');
      await eventually('the banner says that it is reconnecting', async () => (await banner.getAttribute('data-state')) === 'reconnecting');
      assert.ok(await page.locator('#reconnect').isHidden(), 'no button while the SDK tries by itself');
      await eventually('the SDK gives up', async () => (await banner.getAttribute('data-state')) === 'disconnected', 120);
      assert.match((await page.locator('#banner-text').textContent()) ?? '', why);
      assert.equal(await banner.getAttribute('role'), 'alert');
      await eventually('the button has the focus', () => page.evaluate(() => document.activeElement?.id === 'reconnect'));
    }

    if (shape === 'embedded') {
      test('the server is gone until the SDK gives up; its successor knows no such room, and gives a new one', { timeout: TEST_TIMEOUT_MS }, async () => {
        const ada = await on.person('Ada', { viewport: PICTURE });
        await ada.join(`${on.deployment.url}/#room=lost`);
        await ada.page.locator('.tile.local.has-video').waitFor();
        await on.deployment.crashEmbedded();
        await seesItGivenUp(ada, /could not reconnect: the server cannot be reached/i);
        await on.deployment.startEmbeddedAgain();
        await ada.page.keyboard.press('Enter');
        await ada.page.locator('#left-screen').waitFor({ state: 'visible' });
        assert.match((await ada.page.locator('#left-heading').textContent()) ?? '', /closed/);
        await ada.page.locator('#rejoin').click();
        await ada.enter();
        const ben = await on.person('Ben');
        await ben.join(`${on.deployment.url}/#room=lost`);
        await allSeeAndHear([ada, ben]);
        nothingThrown();
      });
    }

    if (shape !== 'cluster') return;

    test('a killed media server: everybody sees and hears everybody again', { timeout: TEST_TIMEOUT_MS }, async (context) => {
      await gather();
      const [ada, ben, eve] = people;
      // Muted stays muted, whatever the room goes through.
      await eve.page.locator('#mic').click();
      await ada.page.locator(`.tile.muted[data-participant="${eve.id}"]`).waitFor();
      const times = await killHost(on.deployment, people);
      context.diagnostic(`SIGKILL to media decoded again, each of three: ${rounded(times)} ms`);
      await allSeeAndHear([ada, ben]);
      await eve.sees(ada);
      await ada.sees(eve);
      for (const one of [ada, ben]) {
        await one.page.locator(`.tile.muted[data-participant="${eve.id}"]`).waitFor();
        assert.equal(await one.page.locator('.tile').count(), 3);
      }
      assert.ok(Math.max(...times) < RECOVERY_LIMIT_MS, `${rounded(times)} ms`);
      await ada.page.locator('[data-testid=banner]').waitFor({ state: 'hidden' });
      nothingThrown();
    });

    test('no media server is left until the SDK gives up; with the next one the button brings everybody back', { timeout: TEST_TIMEOUT_MS }, async () => {
      const [ada] = await gather();
      const alive = on.deployment.workers.filter((worker) => worker.ended === undefined);
      await Promise.all(alive.map((worker) => worker.crash()));
      await ada.page.locator('[data-testid=banner][data-state=reconnecting]').waitFor();
      await ada.page.waitForTimeout(500); // the picture fades
      await screenshot(ada.page, 'interruption');
      await Promise.all(people.map((one) => seesItGivenUp(one, /could not reconnect: no media server takes the room/i)));
      await Promise.all(alive.map(() => on.deployment.startWorker()));
      for (const { page } of people) await page.keyboard.press('Enter');
      await allSeeAndHear(people);
      for (const { page } of people) await page.locator('[data-testid=banner]').waitFor({ state: 'hidden' });
      nothingThrown();
    });

    test('all media servers restarted under a room that nobody leaves or notices', { timeout: TEST_TIMEOUT_MS }, async (context) => {
      await gather();
      await startNoticing(people);
      const { gaps, concealed, seconds } = await restartAll(on.deployment, people);
      context.diagnostic(
        `both restarted in ${seconds.toFixed(1)} s; longest audio gap of each of three: ${rounded(gaps)} ms (${Math.round(concealed)} ms concealed at most)`,
      );
      await nothingNoticed(people);
      for (const { page } of people) {
        assert.equal(await page.evaluate(() => window.switchyard.room.peerConnections.length), 1);
      }
      await allSeeAndHear(people);
      assert.ok(Math.max(...gaps) < GAP_LIMIT_MS, `gaps ${rounded(gaps)} ms`);
      // That the meter would have told: a real silence is one.
      const [ada, ben] = people;
      await ben.page.locator('#mic').click();
      await eventually('the meter shows a silence', async () => (await readGapMeter(ada)).gap > 2 * GAP_LIMIT_MS);
      nothingThrown();
    });
  });
}
