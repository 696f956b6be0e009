import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Publication } from '../sdk/publication.js';
import { Wishes } from '../sdk/wishes.js';

/** An endpoint that answers when it is told to. */
function endpoint() {
  /** @type {{ id: string, quality: object, answer: () => void, refuse: (error: Error) => void }[]} */
  const asked = [];
  const api = {
    /** @param {string} id @param {object} quality @returns {Promise<void>} */
    setQuality: (id, quality) =>
      new Promise((answer, refuse) => {
        asked.push({ id, quality, answer: () => answer(undefined), refuse });
      }),
  };
  return { api, asked };
}

const camera = () => new Publication('trk_1', 'video', 'camera', false);
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('what was set by hand wins over what is seen', () => {
  const [wishes, publication] = [new Wishes(), camera()];
  assert.deepEqual(wishes.of(publication), {});
  wishes.setSeen(publication, { width: 320, height: 192 });
  wishes.setByHand(publication, { maxEncoding: 1 });
  assert.deepEqual(wishes.of(publication), { shown: { width: 320, height: 192 }, maxEncoding: 1 });
  wishes.setSeen(publication, 'hidden');
  assert.deepEqual(wishes.of(publication), { paused: true, maxEncoding: 1 });
  wishes.setByHand(publication, { paused: false });
  assert.deepEqual(wishes.of(publication), { paused: false });
  wishes.setSeen(publication, null);
  wishes.setByHand(publication, {});
  assert.deepEqual(wishes.of(publication), {});
});

test('one request at a time, and only the newest of what came meanwhile', async () => {
  const [wishes, publication, one] = [new Wishes(), camera(), endpoint()];
  await wishes.tell(one, publication);
  assert.equal(one.asked.length, 0, 'nothing is wanted: nothing is said');
  const told = [];
  for (const priority of [1, 2, 3]) {
    wishes.setByHand(publication, { priority });
    told.push(wishes.tell(one, publication));
  }
  assert.deepEqual(one.asked.map(({ quality }) => quality), [{ priority: 1 }]);
  one.asked[0].answer();
  await settled();
  assert.deepEqual(one.asked.map(({ quality }) => quality), [{ priority: 1 }, { priority: 3 }]);
  one.asked[1].answer();
  await Promise.all(told);
  await wishes.tell(one, publication);
  assert.equal(one.asked.length, 2, 'it knows');
});

test('another endpoint, and another id of the track, are told anew', async () => {
  const [wishes, publication, one, two] = [new Wishes(), camera(), endpoint(), endpoint()];
  wishes.setByHand(publication, { paused: true });
  const told = [wishes.tell(one, publication), wishes.tell(two, publication)];
  publication.id = 'trk_2';
  told.push(wishes.tell(two, publication));
  assert.deepEqual(one.asked.map(({ id }) => id), ['trk_1']);
  assert.deepEqual(two.asked.map(({ id }) => id), ['trk_1', 'trk_2']);
  for (const { answer } of [...one.asked, ...two.asked]) answer();
  await Promise.all(told);
});

test('a refusal is told, and the next call tries again', async () => {
  const [wishes, publication, one] = [new Wishes(), camera(), endpoint()];
  wishes.setByHand(publication, { paused: true });
  const told = wishes.tell(one, publication);
  one.asked[0].refuse(new Error('track_not_found'));
  await assert.rejects(told, /track_not_found/);
  const again = wishes.tell(one, publication);
  one.asked[1].answer();
  await again;
});
