/**
 * Firefox, and Chromium, in one room. Firefox takes no media from and to loopback beside other interfaces, so the server's media
 * address is one of a network of the test's own (tests/lib/isolated.sh); the page is at loopback, where cameras are allowed.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Deployment } from './support/deployment.js';
import { eventually } from './support/eventually.js';
import { Fox } from './support/fox.js';
import { Network, run } from './support/network.js';
import { launch, Person } from './support/person.js';

const TEST_TIMEOUT_MS = 180_000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);

describe('Firefox', { timeout: 2 * TEST_TIMEOUT_MS }, () => {
  /** @type {Network} */
  let network;
  /** @type {Deployment} */
  let deployment;
  /** @type {import('playwright-core').Browser} */
  let chromium;
  /** @type {Fox} */
  let fox;

  before(async () => {
    network = new Network();
    // A bridge that nothing is plugged into is down, and Firefox has no candidates where there is no default route.
    network.guest('plugged');
    run('ip route add default dev hub');
    deployment = await Deployment.start('embedded', undefined, network.address, { SWITCHYARD_LISTEN: '127.0.0.1:0' });
    [chromium, fox] = await Promise.all([launch(), Fox.open('Fox')]);
  });

  after(async () => {
    await fox?.close();
    await chromium?.close();
    await deployment?.stop();
    network?.close();
  });

  test('it and Chromium see, hear and write to each other, by every transport of events', { timeout: TEST_TIMEOUT_MS }, async () => {
    const { address } = await deployment.room();
    const ada = await (await Person.open(chromium, 'Ada')).join(address);
    for (const transport of ['websocket', 'sse', 'polling']) {
      await fox.join(address.replace('/#', `/?transport=${transport}#`));
      await fox.sees(ada);
      await fox.hears();
      await ada.sees(fox);
      await ada.hears(fox);
      assert.equal(await fox.transport(), transport);
      await fox.writes(`by ${transport}`);
      await eventually('Ada reads it', async () => (await ada.page.locator('.chat-text').allTextContents()).includes(`by ${transport}`));
      const input = ada.page.locator('#chat-input');
      if (!(await input.isVisible())) await ada.page.keyboard.press('t');
      await input.fill(`to ${transport}`);
      await input.press('Enter');
      await fox.reads(`to ${transport}`);
      await fox.leave();
      await eventually('Ada sees it go', async () => (await ada.tile(fox).count()) === 0);
    }
    fox.isContent();
    await ada.isContent();
  });
});
