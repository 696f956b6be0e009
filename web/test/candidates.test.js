import assert from 'node:assert/strict';
import test from 'node:test';

import { LocalCandidates, RemoteCandidates } from '../sdk/candidates.js';
import { deferred, eventually } from './support/index.js';

const candidate = (text) => ({ candidate: text, toJSON: () => ({ candidate: text, sdpMid: '0' }) });
const texts = (batch) => batch.map((each) => each.candidate);

test('candidates wait until it is known where to, then leave together', async () => {
  const local = new LocalCandidates();
  const sent = [];
  local.add(candidate('a'));
  local.add(candidate('b'));
  local.add(candidate('')); // Firefox's end, followed by null
  local.add(null);
  local.open(async (batch) => sent.push(batch));
  await eventually(() => sent.length === 1, 'the batch');
  assert.deepEqual(texts(sent[0]), ['a', 'b', '']);
});

test('a burst shares a request, and requests do not overtake each other', async () => {
  const local = new LocalCandidates();
  const sent = [];
  const slow = deferred();
  local.open((batch) => {
    sent.push(batch);
    return slow.promise;
  });
  local.add(candidate('a'));
  local.add(candidate('b'));
  await eventually(() => sent.length === 1, 'the first batch');
  local.add(candidate('c'));
  local.add(null);
  await new Promise((resolve) => setTimeout(resolve, 40)); // longer than a burst
  assert.equal(sent.length, 1, 'the next waits for the reply');
  slow.resolve();
  await eventually(() => sent.length === 2, 'the second batch');
  assert.deepEqual(sent.map(texts), [['a', 'b'], ['c', '']]);
});

test('no request is larger than the server takes', async () => {
  const local = new LocalCandidates();
  const sent = [];
  for (let number = 0; number < 70; number += 1) local.add(candidate(`${number}`));
  local.open(async (batch) => sent.push(batch.length));
  await eventually(() => sent.length === 3, 'three batches');
  assert.deepEqual(sent, [32, 32, 6]);
});

test('a closed connection sends nothing any more', async () => {
  const local = new LocalCandidates();
  const sent = [];
  local.open(async (batch) => sent.push(batch));
  local.add(candidate('a'));
  local.close();
  local.add(candidate('b'));
  await new Promise((resolve) => setTimeout(resolve, 40)); // longer than a burst
  assert.deepEqual(sent, []);
});

test('the server’s candidates wait for a remote description; those refused harm nothing', async () => {
  const added = [];
  const peer = {
    remoteDescription: null,
    addIceCandidate: async (each) => {
      added.push(each.candidate);
      if (each.candidate === 'old') throw new DOMException('unknown ufrag', 'OperationError');
    },
  };
  const remote = new RemoteCandidates(peer);
  remote.add([{ candidate: 'old' }, { candidate: 'new' }]);
  assert.deepEqual(added, []);
  peer.remoteDescription = {};
  remote.apply();
  remote.add([{ candidate: 'late' }]);
  assert.deepEqual(added, ['old', 'new', 'late']);
});
