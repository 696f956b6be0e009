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
  'trackSwitched',
  'trackMuted',
  'trackUnmuted',
];

/** Whose feeds. */
const OLD = { name: 'old endpoint' };
const NEW = { name: 'new endpoint' };

/** A roster whose events are noted as `name id`. */
function setUp() {
  const log = [];
  const events = {};
  for (const name of EVENTS) {
    events[name] = (...args) => log.push(`${name} ${args.map((arg) => arg.id ?? arg.label ?? arg).join(' ')}`);
  }
  const roster = new Roster(events);
  /** The receivers of one connection. */
  const connection = (name) => {
    const receivers = new Map();
    return (mid) => {
      if (!receivers.has(mid)) receivers.set(mid, { track: { label: `${name}-${mid}` } });
      return receivers.get(mid);
    };
  };
  return { roster, log, receiverOf: connection('media'), connection };
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
  const { roster, log, receiverOf } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed(OLD, [carries('1', 'trk_1')], receiverOf);
  assert.equal(roster.byMid(OLD, '1').publication.id, 'trk_1');
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
  const { roster, log, receiverOf } = setUp();
  roster.subscribed(OLD, [carries('1', 'trk_1')], receiverOf);
  assert.deepEqual(log, []);
  roster.joined(person('par_a'));
  roster.published('par_a', track('trk_1'));
  assert.equal(log.at(-1), 'trackSubscribed media-1 trk_1 par_a');
});

test('everything may come twice, and late', () => {
  const { roster, log, receiverOf } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed(OLD, [carries('1', 'trk_1')], receiverOf);
  const before = [...log];
  roster.published('par_a', track('trk_1'));
  roster.muted('par_a', 'trk_1', false);
  roster.subscribed(OLD, [carries('1', 'trk_1')], receiverOf);
  roster.unpublished('par_a', 'trk_unknown');
  roster.left('par_unknown', 'left');
  roster.published('par_unknown', track('trk_2'));
  roster.muted('par_unknown', 'trk_2', true);
  roster.disconnected('par_unknown');
  assert.deepEqual(log, before);
});

test('a reused m-line ends one subscription and begins another', () => {
  const { roster, log, receiverOf } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.joined(person('par_b', [track('trk_2')]));
  roster.subscribed(OLD, [carries('1', 'trk_1')], receiverOf);
  log.length = 0;
  roster.subscribed(OLD, [carries('1', 'trk_2', 'par_b')], receiverOf);
  assert.deepEqual(log, ['trackUnsubscribed media-1 trk_1 par_a', 'trackSubscribed media-1 trk_2 par_b']);
  assert.equal(roster.byMid(OLD, '1').publication.id, 'trk_2');
});

test('a track that moves to another m-line is subscribed anew', () => {
  const { roster, log, receiverOf } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed(OLD, [carries('1', 'trk_1')], receiverOf);
  log.length = 0;
  roster.subscribed(OLD, [carries('2', 'trk_1')], receiverOf);
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
  const [camera] = roster.participants.get('par_a').tracks.values();
  roster.joined(person('par_a', [track('trk_2'), track('trk_3')], { name: 'Ada' }));
  assert.equal(roster.participants.get('par_a').tracks.get('trk_3'), camera, 'the same publication under its new id');
  assert.deepEqual(log, [
    'participantUpdated par_a',
    'trackUnmuted trk_2 par_a',
  ]);
  assert.deepEqual([...roster.participants.get('par_a').tracks.keys()].sort(), ['trk_2', 'trk_3']);
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
  const { roster, log, receiverOf } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed(OLD, [carries('1', 'trk_1')], receiverOf);
  log.length = 0;
  roster.unsubscribeAll();
  roster.subscribed(OLD, [carries('2', 'trk_1')], receiverOf);
  assert.deepEqual(log, ['trackUnsubscribed media-1 trk_1 par_a', 'trackSubscribed media-2 trk_1 par_a']);
});

test('what a publisher does not publish again after joining again is unpublished', () => {
  const { roster, log } = setUp();
  roster.joined(person('par_a', [track('trk_1'), track('trk_2', { kind: 'audio', source: 'microphone' })]));
  log.length = 0;
  roster.joined(person('par_a', [track('trk_3')]));
  assert.deepEqual(log, ['trackUnpublished trk_2 par_a', 'participantUpdated par_a']);
});

test('a move: the publication plays from the old endpoint until the new one carries it', () => {
  const { roster, log, connection } = setUp();
  const [before, after] = [connection('old'), connection('new')];
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed(OLD, [carries('1', 'trk_1')], before);
  const [publication] = roster.participants.get('par_a').tracks.values();
  // Ada moves first: the same publication, which still comes by the old way.
  roster.joined(person('par_a', [track('trk_2')]));
  assert.equal(publication.id, 'trk_2');
  assert.equal(publication.track.label, 'old-1');
  log.length = 0;
  roster.subscribed(NEW, [carries('7', 'trk_2')], after);
  assert.deepEqual(roster.waiting(NEW), [{ publication, participant: roster.participants.get('par_a'), mid: '7' }]);
  assert.deepEqual(roster.waiting(OLD), []);
  assert.ok(roster.plays(OLD) && !roster.plays(NEW));
  assert.equal(publication.track.label, 'old-1');
  roster.promote(NEW, publication);
  roster.promote(NEW, publication);
  assert.deepEqual(log, ['trackSwitched new-7 trk_2 par_a old-1']);
  assert.equal(publication.track.label, 'new-7');
  assert.equal(publication.mid, '7');
  assert.ok(roster.plays(NEW) && !roster.plays(OLD));
  assert.equal(roster.byMid(OLD, '7'), null);
  assert.equal(roster.byMid(NEW, '7').publication, publication);
  // The end of the old one, told twice, is nothing.
  roster.unpublished('par_a', 'trk_1');
  roster.subscribed(OLD, [], before);
  roster.drop(OLD);
  assert.equal(log.length, 1);
});

test('a move: what the old endpoint no longer brings is taken from the new one at once', () => {
  const { roster, log, connection } = setUp();
  const [before, after] = [connection('old'), connection('new')];
  roster.joined(person('par_a', [track('trk_1')]));
  roster.subscribed(OLD, [carries('1', 'trk_1')], before);
  roster.joined(person('par_a', [track('trk_2')]));
  roster.subscribed(NEW, [carries('7', 'trk_2')], after);
  log.length = 0;
  roster.drop(OLD);
  assert.deepEqual(log, ['trackUnsubscribed old-1 trk_2 par_a', 'trackSubscribed new-7 trk_2 par_a']);
});

test('a move: muting is told under any id that the track has had', () => {
  const { roster, log } = setUp();
  roster.joined(person('par_a', [track('trk_1')]));
  roster.joined(person('par_a', [track('trk_2')]));
  log.length = 0;
  roster.muted('par_a', 'trk_1', true);
  roster.muted('par_a', 'trk_2', true);
  roster.muted('par_a', 'trk_2', false);
  assert.deepEqual(log, ['trackMuted trk_2 par_a', 'trackUnmuted trk_2 par_a']);
});
