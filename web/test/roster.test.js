import assert from 'node:assert/strict';
import test from 'node:test';

import { Roster } from '../sdk/roster.js';

const EVENTS = [
  'participantJoined',
  'participantLeft',
  'participantUpdated',
  'trackPublished',
  'trackUnpublished',
  'trackSubscribed',
  'trackUnsubscribed',
  'trackMuted',
  'trackUnmuted',
];

/** A roster whose events are noted as `name id`. */
function setUp() {
  const log = [];
  const events = {};
  for (const name of EVENTS) {
    events[name] = (...args) => log.push(`${name} ${args.map((arg) => arg.id ?? arg.label ?? arg).join(' ')}`);
  }
  const roster = new Roster(events);
  const media = { 1: { label: 'media-1' }, 2: { label: 'media-2' } };
  return { roster, log, trackByMid: (mid) => media[mid] ?? null };
}

const track = (id, more = {}) => ({ id, kind: 'video', source: 'camera', muted: false, mid: '0', ...more });
const person = (id, tracks = [], more = {}) => ({ id, name: id, state: 'joined', joined_at: 0, tracks, ...more });
const carries = (mid, trackId, participantId = 'par_a') => ({
  mid,
  track_id: trackId,
  participant_id: participantId,
  kind: 'video',
  source: 'camera',
});

test('someone joins with a track, it is subscribed, unpublished, and they leave', () => {
  const { roster, log, trackByMid } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed([carries('1', 'trk_1')], trackByMid);
  assert.equal(roster.byMid('1').publication.id, 'trk_1');
  roster.unpublished('par_a', 'trk_1');
  roster.left('par_a', 'left');
  assert.deepEqual(log, [
    'participantJoined par_a',
    'trackPublished trk_1 par_a',
    'trackSubscribed media-1 trk_1 par_a',
    'trackUnsubscribed media-1 trk_1 par_a',
    'trackUnpublished trk_1 par_a',
    'participantLeft par_a left',
  ]);
});

test('the offer may come before the event that publishes the track', () => {
  const { roster, log, trackByMid } = setUp();
  roster.subscribed([carries('1', 'trk_1')], trackByMid);
  assert.deepEqual(log, []);
  roster.joined(person('par_a'));
  roster.published('par_a', track('trk_1'));
  assert.equal(log.at(-1), 'trackSubscribed media-1 trk_1 par_a');
});

test('everything may come twice, and late', () => {
  const { roster, log, trackByMid } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed([carries('1', 'trk_1')], trackByMid);
  const before = [...log];
  roster.published('par_a', track('trk_1'));
  roster.muted('par_a', 'trk_1', false);
  roster.subscribed([carries('1', 'trk_1')], trackByMid);
  roster.unpublished('par_a', 'trk_unknown');
  roster.left('par_unknown', 'left');
  roster.published('par_unknown', track('trk_2'));
  roster.muted('par_unknown', 'trk_2', true);
  roster.disconnected('par_unknown');
  assert.deepEqual(log, before);
});

test('a reused m-line ends one subscription and begins another', () => {
  const { roster, log, trackByMid } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.joined(person('par_b', [track('trk_2')]));
  roster.subscribed([carries('1', 'trk_1')], trackByMid);
  log.length = 0;
  roster.subscribed([carries('1', 'trk_2', 'par_b')], trackByMid);
  assert.deepEqual(log, ['trackUnsubscribed media-1 trk_1 par_a', 'trackSubscribed media-1 trk_2 par_b']);
  assert.equal(roster.byMid('1').publication.id, 'trk_2');
});

test('a track that moves to another m-line is subscribed anew', () => {
  const { roster, log, trackByMid } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed([carries('1', 'trk_1')], trackByMid);
  log.length = 0;
  roster.subscribed([carries('2', 'trk_1')], trackByMid);
  assert.deepEqual(log, ['trackUnsubscribed media-1 trk_1 par_a', 'trackSubscribed media-2 trk_1 par_a']);
});

test('muting is told once per change', () => {
  const { roster, log } = setUp();
  roster.joined(person('par_a', [track('trk_1', { muted: true })]));
  log.length = 0;
  roster.muted('par_a', 'trk_1', true);
  roster.muted('par_a', 'trk_1', false);
  roster.muted('par_a', 'trk_1', true);
  assert.deepEqual(log, ['trackUnmuted trk_1 par_a', 'trackMuted trk_1 par_a']);
});

test('a rejoin replaces what was known of a participant', () => {
  const { roster, log } = setUp();
  roster.joined(person('par_a', [track('trk_1'), track('trk_2', { muted: true })]));
  roster.disconnected('par_a');
  log.length = 0;
  roster.joined(person('par_a', [track('trk_2'), track('trk_3')], { name: 'Ada' }));
  assert.deepEqual(log, [
    'trackUnpublished trk_1 par_a',
    'participantUpdated par_a',
    'trackUnmuted trk_2 par_a',
    'trackPublished trk_3 par_a',
  ]);
  assert.equal(roster.participants.get('par_a').name, 'Ada');
  assert.equal(roster.participants.get('par_a').state, 'joined');
});

test('the snapshot of a rejoin removes who left meanwhile', () => {
  const { roster, log } = setUp();
  roster.replace([person('par_a'), person('par_b')]);
  log.length = 0;
  roster.replace([person('par_b'), person('par_c')]);
  assert.deepEqual(log, ['participantLeft par_a left', 'participantUpdated par_b', 'participantJoined par_c']);
});

test('a lost connection ends every subscription, and the next offer brings them back', () => {
  const { roster, log, trackByMid } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed([carries('1', 'trk_1')], trackByMid);
  log.length = 0;
  roster.unsubscribeAll();
  roster.subscribed([carries('2', 'trk_1')], trackByMid);
  assert.deepEqual(log, ['trackUnsubscribed media-1 trk_1 par_a', 'trackSubscribed media-2 trk_1 par_a']);
});
