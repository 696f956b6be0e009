import assert from 'node:assert/strict';
import test from 'node:test';

import { encodingsFor, sendOnly } from '../sdk/encodings.js';

const camera = (width, height, more = {}) => ({
  kind: 'video',
  source: 'camera',
  simulcast: true,
  track: { getSettings: () => ({ width, height }) },
  ...more,
});
const told = (publication) => encodingsFor(publication).map(({ rid, scaleResolutionDownBy }) => `${rid}/${scaleResolutionDownBy}`);

test('a camera is sent in as many sizes as are of use, the lowest first', () => {
  assert.deepEqual(told(camera(1280, 720)), ['q/4', 'h/2', 'f/1']);
  assert.deepEqual(told(camera(540, 960)), ['q/4', 'h/2', 'f/1'], 'upright');
  assert.deepEqual(told(camera(640, 360)), ['h/2', 'f/1']);
  assert.deepEqual(told(camera(320, 180)), []);
  const rates = encodingsFor(camera(1280, 720)).map(({ maxBitrate }) => maxBitrate);
  assert.deepEqual(rates, [180_000, 600_000, 1_700_000]);
});

test('a screen, sound, and what asks for it are sent once', () => {
  assert.deepEqual(told(camera(1920, 1080, { source: 'screen' })), []);
  assert.deepEqual(told(camera(1280, 720, { simulcast: false })), []);
  assert.deepEqual(told(camera(1280, 720, { kind: 'audio' })), []);
  assert.equal(encodingsFor(camera(1280, 720, { track: {} })).length, 3, 'of unknown size');
});

/** A sender whose parameters take their time to change. @param {number} count */
function sender(count) {
  const encodings = Array.from({ length: count }, () => ({ active: true }));
  let changes = 0;
  return {
    getParameters: () => ({ encodings: encodings.map((each) => ({ ...each })) }),
    /** @param {{ encodings: { active: boolean }[] }} parameters */
    async setParameters(parameters) {
      changes += 1;
      await Promise.resolve();
      parameters.encodings.forEach(({ active }, index) => {
        encodings[index].active = active;
      });
    },
    get active() {
      return encodings.map(({ active }) => active);
    },
    get changes() {
      return changes;
    },
  };
}

test('sends as many encodings as are wanted, and changes nothing when it does', async () => {
  const three = sender(3);
  const send = (/** @type {number} */ count) => sendOnly(/** @type {any} */ (three), () => count);
  await send(3);
  assert.equal(three.changes, 0);
  await send(1);
  assert.deepEqual(three.active, [true, false, false]);
  await send(0);
  assert.deepEqual(three.active, [false, false, false]);
  await send(Infinity);
  assert.deepEqual(three.active, [true, true, true]);
});

test('what is wanted while it changes is what it comes to', async () => {
  const three = sender(3);
  let wanted = 1;
  const done = sendOnly(/** @type {any} */ (three), () => wanted);
  wanted = 2;
  await done;
  assert.deepEqual(three.active, [true, true, false]);
});
