import assert from 'node:assert/strict';
import test from 'node:test';

import { Liveness } from '../sdk/liveness.js';

const TICK = 250;

/** Looks on until `until`; something arrives in every tick for which `arrives` says so. Gives when it fell silent. */
function watch(liveness, from, until, arrives) {
  for (let now = from; now <= until; now += TICK) {
    liveness.observe(now, arrives(now));
    if (liveness.isSilent(now)) return now;
  }
  return null;
}

test('steady media that stops is silence after a second', () => {
  const liveness = new Liveness();
  const silentAt = watch(liveness, 0, 20_000, (now) => now < 10_000);
  assert.ok(silentAt >= 10_750 && silentAt <= 11_250, `${silentAt}`);
});

test('a connection that only answers a check every 2.5 s is not silent between them, and is when they stop', () => {
  const liveness = new Liveness();
  const silentAt = watch(liveness, 0, 60_000, (now) => now < 40_000 && now % 2500 === 0);
  assert.ok(silentAt > 44_000 && silentAt < 47_000, `${silentAt}`);
});

test('before anything is usual, nothing is unusual', () => {
  assert.equal(watch(new Liveness(), 0, 60_000, (now) => now === 1000), null);
});

test('a computer that slept has heard nothing, and that is not silence', () => {
  const liveness = new Liveness();
  watch(liveness, 0, 5000, () => true);
  assert.equal(watch(liveness, 65_000, 66_000, () => false), null);
  assert.notEqual(watch(liveness, 66_250, 70_000, () => false), null);
});

test('flowing means just now', () => {
  const liveness = new Liveness();
  assert.equal(liveness.isFlowing(0), false);
  watch(liveness, 0, 5000, () => true);
  assert.equal(liveness.isFlowing(5400), true);
  assert.equal(liveness.isFlowing(5600), false);
});
