/** Whatever pages show that is not "all is well": what people would notice of a fault. */

import assert from 'node:assert/strict';

/** @typedef {import('./person.js').Person} Person */

/** From here on. @param {Person[]} people */
export async function startNoticing(people) {
  for (const { page } of people) {
    await page.evaluate(() => {
      /** @type {string[]} */
      const noticed = [];
      Object.assign(window, { noticed });
      window.switchyard.room.on('connectionState', (/** @type {string} */ state) => noticed.push(state));
      window.switchyard.room.on('trackUnsubscribed', () => noticed.push('unsubscribed'));
      window.switchyard.room.on('participantLeft', () => noticed.push('left'));
    });
  }
}

/** @param {Person[]} people */
export async function nothingNoticed(people) {
  for (const { name, page } of people) {
    assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).noticed), [], `${name} noticed`);
  }
}
