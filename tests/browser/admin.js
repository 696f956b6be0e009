/** The admin page under a live deployment: in either shape, run by embedded.test.js and cluster.test.js. */

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Deployment } from './support/deployment.js';
import { eventually } from './support/eventually.js';
import { allSeeAndHear, launch, Person } from './support/person.js';
import { SCENIC } from './support/scenery.js';
import { screenshot } from './support/screenshots.js';

/** The whole of one test; every wait inside is bounded more tightly. */
const TEST_TIMEOUT_MS = 300_000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);
const PATIENCE_MS = 30_000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);

/** Markup as a name: it must be read, never obeyed. */
const HOSTILE = '<img src=x onerror="hacked=1"><b>Mallory</b>';
/** What a phone has. */
const PHONE = { width: 390, height: 844 };

/** @param {'embedded' | 'cluster'} shape */
export function admin(shape) {
  describe(`admin page, ${shape}`, { timeout: 3 * TEST_TIMEOUT_MS }, () => {
    /** @type {Deployment} */
    let deployment;
    /** @type {import('playwright-core').Browser} */
    let browser;
    /** @type {(() => Promise<void>)[]} */
    let ends = [];

    before(async () => {
      [deployment, browser] = await Promise.all([Deployment.start(shape), launch()]);
    });
    after(async () => {
      await browser?.close();
      await deployment?.stop();
    });
    afterEach(async () => {
      await Promise.all(ends.map((end) => end()));
      ends = [];
    });

    /** @param {string} name @param {string} address */
    async function join(name, address) {
      const person = await Person.open(browser, name);
      ends.push(() => person.close());
      return person.join(address);
    }

    /** A tab, and everything that its page complained about. @param {import('playwright-core').BrowserContextOptions} [options] */
    async function tab(options = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
      ends.push(() => context.close());
      const page = await context.newPage();
      page.setDefaultTimeout(PATIENCE_MS);
      /** @type {string[]} */
      const complaints = [];
      page.on('console', (message) => {
        // Figures are asked of who may leave at that very moment; the browser itself logs the answer.
        if (message.type() === 'error' && !message.location().url.endsWith('/stats')) complaints.push(message.text());
      });
      page.on('pageerror', (error) => complaints.push(error.message));
      return { page, complaints };
    }

    /** @param {import('playwright-core').Page} page @param {string} name of a figure */
    const shown = (page, name) => page.locator(`[data-figure=${name}]`).textContent();

    /** Waits until a locator has so many. @param {import('playwright-core').Locator} locator @param {number} number @param {string} what */
    const has = (locator, number, what) =>
      eventually(what, async () => {
        const there = await locator.count();
        if (there === number) return true;
        throw new Error(`there are ${there}`);
      });

    test('an operator finds a room, sees how it is, removes somebody and ends it', { timeout: TEST_TIMEOUT_MS }, async () => {
      const room = await deployment.room({ name: HOSTILE });
      const [ada, mallory] = [await join('Ada', room.address), await join(HOSTILE, room.address)];
      await allSeeAndHear([ada, mallory]);
      for (const name of ['Stand-up', 'Support desk', 'Physics 101']) await deployment.room({ name });

      const { page, complaints } = await tab();
      await page.goto(await deployment.adminLink());
      await page.locator('#workers .worker').first().waitFor();
      assert.equal(new URL(page.url()).hash, '', 'no token stays in the address');
      assert.equal(await page.locator('#workers .worker').count(), shape === 'embedded' ? 1 : 2);
      await eventually('the figures have come', async () => {
        const [people, packets, flow] = await Promise.all(['participants', 'packets', 'bits'].map((name) => shown(page, name)));
        if (people === '2' && Number.parseFloat(packets ?? '') > 10 && /bit\/s$/.test(flow ?? '')) return true;
        throw new Error(`${people} people, ${packets}, ${flow}`);
      });
      await has(page.locator('#sessions .session'), 4, 'all sessions are listed');
      await eventually('graphs go on', async () => {
        const drawn = await page.locator('#graphs path').first().getAttribute('d');
        return (drawn?.split('L').length ?? 0) > 5;
      });

      // Names are searched for as they are, and shown as they are.
      await page.locator('#search').fill('<b>mallory');
      await has(page.locator('#sessions .session'), 1, 'one is found');
      assert.equal(await page.locator('#sessions .session-link').textContent(), HOSTILE);
      await page.locator('#search').fill('.*');
      await page.locator('#sessions-empty').waitFor();
      await page.locator('#search').fill(mallory.id);
      await has(page.locator('#sessions .session'), 1, 'the one with that person is found');

      // From here on by keyboard alone.
      await page.locator('#sessions .session-link').press('Enter');
      await has(page.locator('#people .person'), 2, 'both are in it');
      assert.deepEqual((await page.locator('.person-name').allTextContents()).sort(), [HOSTILE, 'Ada'].sort());
      await eventually('their connections have figures', async () => {
        const rows = await page.locator('#people .person').allInnerTexts();
        if (rows.every((row) => /bit\/s.*bit\/s/s.test(row) && /\d+ ms/.test(row) && /camera/.test(row))) return true;
        throw new Error(rows.join(' | '));
      });
      const told = page.locator('#timeline .entry-what');
      await eventually('the timeline tells of both', async () => (await told.allTextContents()).filter((what) => what === 'participant.joined').length === 2);

      const remove = page.locator('#people .person', { hasText: 'Mallory' }).getByRole('button');
      assert.equal(await remove.getAttribute('aria-label'), `Remove ${HOSTILE}`);
      await remove.press('Enter');
      const dialog = page.locator('#confirm');
      await dialog.waitFor();
      assert.equal(await page.locator('#confirm-title').textContent(), `Remove ${HOSTILE}?`);
      assert.equal(await page.evaluate(() => document.activeElement?.id), 'confirm-no', 'the harmless answer has the focus');
      await page.keyboard.press('Escape');
      await dialog.waitFor({ state: 'hidden' });
      await has(page.locator('#people .person'), 2, 'nobody was removed');
      await remove.press('Enter');
      await dialog.waitFor();
      await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      // Told by the timeline: her page may take its lost connection for a broken one and join again before it hears why.
      const removed = page.locator('#timeline .entry', { hasText: 'participant.left' });
      await eventually('she was removed', async () => (await removed.allInnerTexts()).some((text) => /removed/.test(text) && text.includes(HOSTILE)));

      await page.locator('#session-close').press('Enter');
      await dialog.waitFor();
      await page.locator('#confirm-yes').press('Enter');
      for (const one of [ada, mallory]) await one.page.locator('#left-screen').waitFor();
      await page.locator('#people-empty').waitFor();
      assert.equal(await page.locator('#session-close').isVisible(), false);

      // It is still found among those that have ended.
      await page.locator('.back a').press('Enter');
      await page.locator('#search').fill('mallory');
      await page.locator('#sessions-empty').waitFor();
      await page.locator('#search-any').check();
      await has(page.locator('#sessions .session'), 1, 'the ended one is found');
      assert.match(await page.locator('#sessions .session').innerText(), /ended/);

      assert.equal(await page.evaluate(() => 'hacked' in window), false);
      assert.equal(await page.locator('#content img, #content b').count(), 0);
      assert.deepEqual(complaints, []);
    });

    test('the page opens for a good link only, and forgets it when told to', { timeout: TEST_TIMEOUT_MS }, async () => {
      const { page, complaints } = await tab({ viewport: PHONE });
      await page.goto(`${deployment.url}/admin`);
      await page.locator('#signin-input').fill('nonsense');
      await page.locator('#signin-input').press('Enter');
      await page.locator('#signin-error').waitFor();
      // Signed by nobody here.
      const claims = { iss: 'test-key', exp: Math.floor(Date.now() / 1000) + 600, video: { operator: true } };
      const forged = ['{"alg":"HS256"}', JSON.stringify(claims), 'signature'].map((part) => Buffer.from(part).toString('base64url')).join('.');
      await page.locator('#signin-input').fill(forged);
      await page.locator('#signin-input').press('Enter');
      await page.locator('#signin-error').waitFor();
      assert.match((await page.locator('#signin-error').textContent()) ?? '', /expired, or is not from this server/);
      assert.match(complaints.splice(0).join(), /401/);

      await page.locator('#signin-input').fill(await deployment.adminLink());
      await page.locator('#signin-input').press('Enter');
      await page.locator('#workers .worker').first().waitFor();
      await page.reload();
      await page.locator('#workers .worker').first().waitFor();
      // On a phone nothing is wider than the phone, in the list and in a session.
      const { id } = await deployment.room({ name: 'W'.repeat(200) });
      await page.locator('#search').fill(id);
      await has(page.locator('#sessions .session'), 1, 'it is found by its id');
      const fits = async () => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
      assert.ok(await fits(), 'the overview fits');
      if (shape === 'cluster') await screenshot(page, 'admin-phone');
      await page.locator('#sessions .session-link').click();
      await page.locator('#session-close').waitFor();
      assert.ok(await fits(), 'a session fits');
      await deployment.backend('DELETE', `/v1/sessions/${id}`);

      await page.locator('#signout').click();
      await page.locator('#signin-screen').waitFor();
      await page.reload();
      await page.locator('#signin-screen').waitFor();
      assert.deepEqual(complaints, []);
    });

    test('a media server is drained by its button', { timeout: TEST_TIMEOUT_MS }, async () => {
      const room = await deployment.room({ name: 'Weekly planning' });
      const [ada, ben] = [await join('Ada', room.address), await join('Ben', room.address)];
      await allSeeAndHear([ada, ben]);
      const { page, complaints } = await tab();
      await page.goto(await deployment.adminLink());
      const rows = page.locator('#workers .worker');
      await rows.first().waitFor();
      const dialog = page.locator('#confirm');
      if (shape === 'cluster') {
        // A picture that people look at has graphs from edge to edge.
        const looks = SCENIC ? 25 : 5;
        await eventually('graphs have begun', async () => ((await page.locator('#graphs path').first().getAttribute('d'))?.split('L').length ?? 0) > looks, 90);
        await screenshot(page, 'admin');
        await page.locator('#sessions .session-link', { hasText: 'Weekly planning' }).click();
        await eventually('figures have come', async () => (await page.locator('#people .person').allInnerTexts()).filter((row) => /\d+ ms/.test(row)).length === 2);
        await screenshot(page, 'admin-session');
        await page.locator('.back a').click();
      }
      if (shape === 'embedded') {
        // There is nobody to move to: the refusal is told where it was asked.
        await rows.getByRole('button').click();
        await page.locator('#confirm-yes').click();
        await page.locator('#confirm-error').waitFor();
        assert.match((await page.locator('#confirm-text').textContent()) ?? '', /No other media server/);
        await page.locator('#confirm-no').click();
        await dialog.waitFor({ state: 'hidden' });
        assert.match(complaints.splice(0).join(), /409/);
      } else {
        const { worker_id: host } = await deployment.backend('GET', `/v1/admin/sessions/${room.id}`);
        await page.locator(`#workers .worker[data-key="${host}"]`).getByRole('button').click();
        await page.locator('#confirm-yes').click();
        await dialog.waitFor({ state: 'hidden' });
        await eventually('its process has ended', async () => (await rows.count()) === 1);
      }
      await allSeeAndHear([ada, ben]);
      for (const one of [ada, ben]) {
        // An answer that crosses the move reaches an endpoint that is over: 410, which browsers print.
        one.complaints = one.complaints.filter((complaint) => !/ 410 .*\/answer$/.test(complaint));
        await one.isContent();
      }
      assert.deepEqual(complaints, []);
    });
  });
}
