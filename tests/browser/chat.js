/** The chat of the demo, and messages by the SDK: in any deployment shape, run by embedded.test.js and cluster.test.js. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventually } from './support/eventually.js';
import { hostOf } from './support/failover.js';
import { allSeeAndHear } from './support/person.js';
import { screenshot } from './support/screenshots.js';
import { PICTURE, stage, TEST_TIMEOUT_MS } from './support/stage.js';

/** @typedef {import('./support/person.js').Person} Person */

/** What stands in someone's chat: who said what. @param {Person} person */
async function linesOf(person) {
  return person.page.locator('.chat-line').evaluateAll((lines) => {
    let name = '';
    return lines.map((line) => {
      name = line.querySelector('.chat-name')?.textContent ?? name;
      return `${name}: ${line.querySelector('.chat-text')?.textContent}`;
    });
  });
}

/** @param {Person} person @param {string} line */
function reads(person, line) {
  return eventually(`${person.name} reads "${line}"`, async () => {
    const lines = await linesOf(person);
    if (lines.includes(line)) return true;
    throw new Error(JSON.stringify(lines));
  });
}

/** Writes by keyboard alone. @param {Person} person @param {string} text */
async function writes(person, text) {
  const input = person.page.locator('#chat-input');
  if (!(await input.isVisible())) await person.page.keyboard.press('t');
  await input.fill(text);
  await input.press('Enter');
}

/** @param {'embedded' | 'cluster'} shape */
export function chat(shape) {
  describe(`chat, ${shape}`, { timeout: 4 * TEST_TIMEOUT_MS }, () => {
    const on = stage(shape);

    /** @param {string} name @param {string} address @param {Parameters<typeof on.person>[1]} [options] */
    async function join(name, address, options) {
      return (await on.person(name, options)).join(address);
    }

    test('three people write to each other, to one of them alone, and to who came late', { timeout: TEST_TIMEOUT_MS }, async () => {
      const { address } = await on.deployment.room();
      const ada = await join('Ada', address, { viewport: PICTURE });
      const ben = await join('Ben', address);
      await allSeeAndHear([ada, ben]);

      await writes(ada, 'before Eve came');
      await reads(ben, 'Ada: before Eve came');
      const badge = ben.page.locator('#chat-toggle');
      assert.equal(await badge.getAttribute('data-badge'), '1');
      assert.equal(await badge.getAttribute('aria-label'), 'Chat, 1 unread');

      const eve = await join('Eve', address);
      await allSeeAndHear([ada, ben, eve]);
      await writes(ben, 'hello both');
      await reads(ada, 'Ben: hello both');
      await reads(eve, 'Ben: hello both');
      assert.equal(await badge.getAttribute('data-badge'), '', 'what is shown is read');

      await eve.page.keyboard.press('t');
      await eve.page.locator('#chat-to').selectOption({ label: 'Ada' });
      await writes(eve, 'only for you');
      await reads(ada, 'Eve to you: only for you');
      await reads(eve, 'You to Ada: only for you');

      // Whatever is written is text.
      const markup = '<img src=x onerror="window.hacked=1"><b>bold</b>';
      await writes(ada, markup);
      for (const one of [ben, eve]) {
        await reads(one, `Ada: ${markup}`);
        assert.equal(await one.page.locator('#chat-log img, #chat-log b').count(), 0);
      }
      assert.deepEqual(await linesOf(eve), ['Ben: hello both', 'You to Ada: only for you', `Ada: ${markup}`]);
      assert.ok(!(await linesOf(ben)).join().includes('only for you'));
      if (shape === 'embedded') await screenshot(ada.page, 'chat');

      await ada.page.keyboard.press('Escape');
      assert.equal(await ada.page.locator('#chat').isVisible(), false);
      await allSeeAndHear([ada, ben, eve]);
      for (const one of [ada, ben, eve]) await one.isContent();
    });

    test('the SDK sends bytes and lossy messages, to all and to one of three', { timeout: TEST_TIMEOUT_MS }, async () => {
      const { address } = await on.deployment.room();
      const [ada, ben, eve] = [await join('Ada', address), await join('Ben', address), await join('Eve', address)];
      for (const one of [ada, ben, eve]) {
        await one.page.evaluate(() => {
          const heard = /** @type {any[]} */ ([]);
          Object.assign(window, { heard });
          window.switchyard.room.on('message', ({ data, from, topic, direct }) => {
            heard.push({ data: data instanceof ArrayBuffer ? [...new Uint8Array(data)] : data, from, topic, direct });
          });
        });
      }
      const heard = (/** @type {Person} */ one) => one.page.evaluate(() => /** @type {any} */ (window).heard);
      const say = (/** @type {any} */ data, /** @type {any} */ options) =>
        ada.page.evaluate(([what, how]) => window.switchyard.room.sendMessage(Array.isArray(what) ? new Uint8Array(what) : what, how), /** @type {const} */ ([data, options]));
      // A lossy message is not waited for: it goes once the channels are open on both sides.
      await eventually('a lossy message reaches both', async () => {
        await say('ping', { topic: 'warm', reliable: false });
        const all = await Promise.all([heard(ben), heard(eve)]);
        return all.every((list) => list.some(({ topic }) => topic === 'warm'));
      });
      assert.equal(await say([0, 1, 255], { topic: 'bytes', to: [ben.id], reliable: false }), true);
      assert.equal(await say({ long: 'x'.repeat(50_000) }, { topic: 'long' }), true);
      for (const one of [ben, eve]) {
        await eventually(`${one.name} hears the long one`, async () => (await heard(one)).some((/** @type {any} */ { topic }) => topic === 'long'));
      }
      const bytes = { data: [0, 1, 255], from: ada.id, topic: 'bytes', direct: true };
      assert.deepEqual((await heard(ben)).filter((/** @type {any} */ { topic }) => topic === 'bytes'), [bytes]);
      assert.deepEqual((await heard(eve)).filter((/** @type {any} */ { topic }) => topic === 'bytes'), []);
      assert.deepEqual(await heard(ada), []);
      for (const one of [ada, ben, eve]) await one.isContent();
    });

    test('who only polls chats as well', { timeout: TEST_TIMEOUT_MS }, async () => {
      const room = await on.deployment.room();
      const ada = await join('Ada', room.address);
      const [base] = on.deployment.apis;
      /** @param {string} method @param {string} path @param {string} token @param {object} [body] */
      const request = async (method, path, token, body) => {
        const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
        const reply = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
        assert.ok(reply.ok, `${method} ${path}: ${reply.status}`);
        return reply.json();
      };
      const path = `/v1/sessions/${room.id}`;
      const joined = await request('POST', `${path}/participants`, room.token, { name: 'Poll' });
      const me = joined.participant.id;
      await eventually('Ada sees that somebody came', async () => /2/.test((await ada.page.locator('#count').textContent()) ?? ''));
      await request('POST', `${path}/messages`, joined.token, { topic: 'chat', data: 'hello by HTTP' });
      await reads(ada, 'Poll: hello by HTTP');
      await writes(ada, 'hello by channel');
      let cursor = '';
      const messages = /** @type {any[]} */ ([]);
      await eventually('the message comes as an event', async () => {
        const query = `endpoint=${joined.endpoint_id}&wait=2${cursor && `&cursor=${cursor}`}`;
        const page = await request('GET', `${path}/participants/${me}/events?${query}`, joined.token);
        cursor = page.cursor ?? cursor;
        messages.push(...page.events.filter((/** @type {any} */ { type }) => type === 'message'));
        return messages.length > 0;
      });
      const [{ data }] = messages;
      assert.deepEqual([data.from, data.topic, data.data], [ada.id, 'chat', 'hello by channel']);
      await ada.isContent();
      // Who stays without ever following holds up a media server that drains, to its deadline.
      const left = await fetch(`${base}${path}/participants/${me}`, { method: 'DELETE', headers: { Authorization: `Bearer ${joined.token}` } });
      assert.equal(left.status, 204);
    });

    if (shape === 'cluster') {
      test('the chat goes on after a killed media server, and through a rolling restart', { timeout: 2 * TEST_TIMEOUT_MS }, async () => {
        const room = await on.deployment.room();
        const [ada, ben] = [await join('Ada', room.address), await join('Ben', room.address)];
        await allSeeAndHear([ada, ben]);
        await writes(ada, 'one');
        await reads(ben, 'Ada: one');
        const killed = await hostOf(on.deployment, [ada, ben]);
        await killed.crash();
        await writes(ada, 'two');
        await allSeeAndHear([ada, ben]);
        await writes(ben, 'three');
        await reads(ada, 'Ben: three');
        await on.deployment.startWorker();
        const drained = await hostOf(on.deployment, [ada, ben]);
        const ended = drained.drain(60);
        await writes(ada, 'during the move');
        assert.equal(await ended, '0');
        await reads(ben, 'Ada: during the move');
        await writes(ada, 'four');
        await reads(ben, 'Ada: four');
        await writes(ben, 'five');
        await reads(ada, 'Ben: five');
        const ofAda = (await linesOf(ben)).filter((line) => line.startsWith('Ada'));
        assert.equal(new Set(ofAda).size, ofAda.length, `nothing is told twice: ${ofAda}`);
      });
    }
  });
}
