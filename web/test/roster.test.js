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

test('what this browser cannot decode is told once', () => {
  const { roster, told } = suspensions();
  roster.refused('trk_unknown', 'video/AV1');
  roster.refused('trk_c', 'video/AV1');
  roster.refused('trk_c', 'video/AV1');
  assert.deepEqual(told, ['refused trk_c video/AV1']);
});

test('what is suspended is told once, by any id that the track has or had, and so is its end', () => {
  const { roster, told } = suspensions();
  roster.suspended(['trk_c', 'trk_unknown'], true);
  roster.suspended(['trk_c'], true);
  assert.deepEqual(told, ['suspended trk_c']);
  assert.equal(roster.participants.get('par_a')?.tracks.get('trk_c')?.suspended, true);
  roster.joined(/** @type {any} */ ({ id: 'par_a', name: '', state: 'connected', tracks: [{ ...CAMERA, id: 'trk_d' }] }));
  roster.suspended(['trk_c'], false);
  assert.deepEqual(told, ['suspended trk_c', 'resumed trk_d']);
  roster.suspended(['trk_d'], true);
  roster.resumeAll();
  assert.deepEqual(told.slice(2), ['suspended trk_d', 'resumed trk_d']);
  assert.deepEqual(roster.publications(['trk_d', 'trk_c']).map(({ id }) => id), ['trk_d']);
});

test('what is held is told once, apart from what is suspended, and both end with the endpoint', () => {
  const { roster, told } = suspensions();
  roster.held(['trk_c', 'trk_unknown'], true);
  roster.held(['trk_c'], true);
  assert.deepEqual(told, ['held trk_c']);
  const camera = roster.participants.get('par_a')?.tracks.get('trk_c');
  assert.deepEqual([camera?.held, camera?.suspended], [true, false]);
  roster.held(['trk_c'], false);
  roster.held(['trk_c'], true);
  roster.resumeAll();
  assert.deepEqual(told.slice(1), ['released trk_c', 'held trk_c', 'released trk_c']);
});

const CAMERA = { id: 'trk_c', kind: 'video', source: 'camera', muted: false, mid: '0' };

/** A roster with one camera, and what is told of its suspension. */
function suspensions() {
  /** @type {string[]} */
  const told = [];
  const nothing = () => {};
  const hooks = new Proxy(
    {
      /** @param {{ id: string, refused: string }} publication */
      trackRefused: ({ id, refused }) => told.push(`refused ${id} ${refused}`),
      /** @param {{ id: string }} publication */
      videoSuspended: ({ id }) => told.push(`suspended ${id}`),
      /** @param {{ id: string }} publication */
      videoResumed: ({ id }) => told.push(`resumed ${id}`),
      /** @param {{ id: string }} publication */
      videoHeld: ({ id }) => told.push(`held ${id}`),
      /** @param {{ id: string }} publication */
      videoReleased: ({ id }) => told.push(`released ${id}`),
    },
    { get: (known, name) => /** @type {any} */ (known)[name] ?? nothing },
  );
  const roster = new Roster(/** @type {any} */ (hooks));
  roster.joined(/** @type {any} */ ({ id: 'par_a', name: '', state: 'connected', tracks: [CAMERA] }));
  return { roster, told };
}
