/** A room that moves to another media server while it goes on: `session.moving`. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { Room } from '../sdk/room.js';
import { FakePeerConnection, FakeTrack } from './support/fake-media.js';
import { deferred, eventually } from './support/index.js';
import { RoomServer } from './support/room-server.js';

globalThis.RTCPeerConnection = FakePeerConnection;

const latest = () => FakePeerConnection.made.at(-1);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const track = (id, kind, more = {}) => ({ id, kind, source: kind === 'audio' ? 'microphone' : 'camera', muted: false, mid: '0', ...more });
const ben = (...tracks) => ({ id: 'par_b', name: 'Ben', state: 'connected', joined_at: 0, tracks });
const BEFORE = [track('trk_a1', 'audio'), track('trk_v1', 'video')];
const AFTER = [track('trk_a2', 'audio'), track('trk_v2', 'video')];

/** Ada, connected and publishing, who sees and hears Ben on m-lines 5 and 6. */
async function setUp(context, { tracks = [{ track: new FakeTrack('audio') }], others = [ben(...BEFORE)] } = {}) {
  const server = await RoomServer.start();
  server.others = others;
  const room = await Room.join(server.link, { name: 'Ada', transport: 'polling', rejoinAttempts: 2, tracks });
  context.after(async () => {
    await room.leave();
    server.stop();
  });
  const log = [];
  for (const name of ['trackPublished', 'trackUnpublished', 'trackSubscribed', 'trackUnsubscribed', 'trackSwitched', 'participantJoined', 'participantLeft', 'interrupted', 'disconnected', 'closed']) {
    room.on(name, (...args) => log.push(`${name} ${args.map((arg) => arg.id ?? arg.kind ?? arg.code ?? arg).join(' ')}`));
  }
  room.on('connectionState', (state) => log.push(state));
  const old = latest();
  old.become('connected');
  if (others.length > 0) {
    offer(server, 5, others[0].tracks);
    await eventually(() => server.calls.answer.length === 1, 'subscribed');
  }
  log.length = 0;
  return { server, room, log, old };
}

/** The server's offer to the latest endpoint: these tracks of Ben's on m-lines from `firstMid` on. */
function offer(server, firstMid, tracks) {
  const subscribed = tracks.map(({ id, kind, source }, index) => ({ mid: String(firstMid + index), track_id: id, participant_id: 'par_b', kind, source }));
  const sdp = JSON.stringify(subscribed.map(({ mid, kind }) => ({ mid, kind })));
  server.send('offer', { endpoint_id: server.endpointId, revision: server.revision + 1, sdp, tracks: subscribed });
}

function move(server, seconds = 30) {
  server.epoch = 2;
  server.send('session.moving', { epoch: 2, deadline: Date.now() + seconds * 1000 });
}

test('a move nobody notices: joined anew, switched track by track as media comes, the old connection closed last', async (context) => {
  const { server, room, log, old } = await setUp(context);
  const participant = room.participants.get('par_b');
  const [microphone, camera] = participant.tracks.values();
  const before = { audio: microphone.track, video: camera.track };
  const [published] = room.localParticipant.tracks.values();
  const firstId = published.id;

  move(server);
  await eventually(() => server.calls.join.length === 2, 'the join at the new one');
  const [, join] = server.calls.join;
  assert.equal(join.participant_id, 'par_me');
  assert.notEqual(join.endpoint_id, server.calls.join[0].endpoint_id);
  assert.notEqual(join.offer.tracks[0].track_id, firstId, 'an id of its own there');
  await eventually(() => server.isRead(join.endpoint_id), 'the events of the new endpoint');
  assert.ok(server.isRead(server.endpoints[0]), 'those of the old one, too');
  assert.equal(published.id, join.offer.tracks[0].track_id);
  const fresh = latest();
  fresh.become('connected');
  assert.deepEqual(room.peerConnections, [fresh, old]);
  assert.notEqual(old.connectionState, 'closed');

  // Ben moves, and comes by the new way: his sound first.
  server.send('participant.joined', { participant: ben(...AFTER) });
  offer(server, 7, AFTER);
  await eventually(() => server.calls.answer.length === 2, 'subscribed at the new one');
  assert.equal(microphone.track, before.audio);
  fresh.receive('7', { packetsReceived: 3 });
  await pause(200);
  assert.deepEqual(log, [], 'three packets are no sound yet');
  fresh.receive('7', { packetsReceived: 30 });
  await eventually(() => log.length === 1, 'the switch of the sound');
  fresh.receive('8', { packetsReceived: 30, framesDecoded: 0 });
  await pause(200);
  assert.equal(log.length, 1, 'no frame, no picture');
  fresh.receive('8', { framesDecoded: 1 });
  await eventually(() => log.length === 2, 'the switch of the picture');
  assert.deepEqual(log, ['trackSwitched audio trk_a2 par_b audio', 'trackSwitched video trk_v2 par_b video']);
  assert.deepEqual([...participant.tracks.values()], [microphone, camera], 'the same publications');
  assert.notEqual(microphone.track, before.audio);
  assert.notEqual(camera.track, before.video);
  assert.notEqual(old.connectionState, 'closed', 'kept for who is slower');

  await eventually(() => old.connectionState === 'closed', 'the old connection is closed');
  assert.deepEqual(room.peerConnections, [fresh]);
  assert.equal(server.calls.leave.length, 0);
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  server.send('participant.joined', { participant: { id: 'par_c', name: '', state: 'joined', joined_at: 0, tracks: [] } });
  await eventually(() => log.includes('participantJoined par_c'), 'events go on');
  assert.equal(log.length, 3);
});

test('who has not moved is seen by the old connection, which stays until the deadline', async (context) => {
  const { server, room, log, old } = await setUp(context);
  move(server, 3);
  await eventually(() => room.peerConnections.length === 2, 'both');
  latest().become('connected');
  await pause(1000);
  assert.deepEqual(log, []);
  assert.notEqual(old.connectionState, 'closed');
  await eventually(() => old.connectionState === 'closed', 'closed at the deadline');
  assert.deepEqual(log, ['trackUnsubscribed audio trk_a1 par_b', 'trackUnsubscribed video trk_v1 par_b']);
  assert.equal(room.connectionState, 'connected');
});

test('a viewer keeps the old connection for a publisher who has not moved, and leaves it after', async (context) => {
  const { server, room, old } = await setUp(context, { others: [ben()] });
  move(server);
  await eventually(() => room.peerConnections.length === 2, 'both');
  latest().become('connected');
  await pause(3000);
  assert.notEqual(old.connectionState, 'closed', 'Ben is still seen there, or sees us there');
  server.send('participant.joined', { participant: ben() });
  await eventually(() => old.connectionState === 'closed', 'closed after him');
});

test('muted while moving: both are told, and the last wish wins', async (context) => {
  const { server, room } = await setUp(context);
  const [publication] = room.localParticipant.tracks.values();
  const firstId = publication.id;
  const held = deferred();
  server.holding = held.promise;
  move(server);
  await eventually(() => server.calls.join.length === 2, 'the join on its way');
  await room.localParticipant.setMuted('microphone', true);
  assert.ok(server.calls.mute[0].path.endsWith(firstId), 'the old endpoint knows it by its own id');
  assert.equal(server.calls.mute[0].destination, `to-${server.endpoints[0]}`);
  held.resolve();
  await eventually(() => server.calls.mute.length === 2, 'and the new one is told what its offer did not say');
  assert.ok(server.calls.mute[1].path.endsWith(publication.id));
  assert.equal(server.calls.mute[1].destination, `to-${server.endpoints[1]}`);
  assert.equal(server.calls.mute[1].muted, true);
});

test('published, replaced and unpublished while moving: so at both', async (context) => {
  const { server, room, old } = await setUp(context);
  move(server);
  await eventually(() => room.peerConnections.length === 2, 'both');
  const fresh = latest();
  fresh.become('connected');
  const sends = (peer) => peer.getTransceivers().flatMap(({ sender }) => (sender.track ? [sender.track] : []));
  const other = new FakeTrack('audio');
  await room.localParticipant.replaceTrack('microphone', other);
  assert.deepEqual([sends(old), sends(fresh)], [[other], [other]]);
  await room.localParticipant.unpublish('microphone');
  assert.deepEqual([sends(old), sends(fresh)], [[], []]);
});

test('no other media server yet: tried until there is one, and the old one plays on', async (context) => {
  const { server, room, log, old } = await setUp(context);
  server.refusals.join = Array(3).fill({ status: 503, code: 'unavailable' });
  move(server);
  await eventually(() => server.calls.join.length === 5, 'more tries than a lost connection gets');
  await eventually(() => room.peerConnections.length === 2, 'both');
  assert.deepEqual(log, []);
  assert.notEqual(old.connectionState, 'closed');
});

test('the old media server dies in the middle of a move: the join under way is the way back', async (context) => {
  const { server, room, log } = await setUp(context);
  const held = deferred();
  server.holding = held.promise;
  move(server);
  await eventually(() => server.calls.join.length === 2, 'the join on its way');
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => room.connectionState === 'reconnecting', 'reconnecting');
  held.resolve();
  await eventually(() => room.peerConnection !== null, 'joined');
  latest().become('connected');
  assert.equal(room.connectionState, 'connected');
  assert.equal(server.calls.join.length, 2);
  assert.deepEqual(log.filter((entry) => !entry.startsWith('track')), ['interrupted connection_lost', 'reconnecting', 'connected']);
});

test('the new media server dies before it carries anything: joined again, the old one plays on', async (context) => {
  const { server, room, log, old } = await setUp(context);
  move(server);
  await eventually(() => room.peerConnections.length === 2, 'both');
  const failed = latest();
  failed.become('connected');
  server.send('endpoint.state', { endpoint_id: server.endpointId, state: 'closed' });
  await eventually(() => server.calls.join.length === 3, 'the next join');
  await eventually(() => room.peerConnections.length === 2 && latest() !== failed, 'both again');
  assert.equal(failed.connectionState, 'closed');
  assert.notEqual(old.connectionState, 'closed');
  assert.deepEqual(log, [], 'nothing to notice');
});

test('moved again before the first move is over', async (context) => {
  const { server, room, log, old } = await setUp(context);
  move(server);
  await eventually(() => room.peerConnections.length === 2, 'both');
  latest().become('connected');
  server.epoch = 3;
  server.send('session.moving', { epoch: 3, deadline: Date.now() + 30_000 });
  await eventually(() => room.peerConnections.length === 3, 'three');
  latest().become('connected');
  server.send('participant.joined', { participant: ben(...AFTER) });
  offer(server, 7, AFTER);
  await eventually(() => server.calls.answer.length === 2, 'subscribed at the newest');
  for (const mid of ['7', '8']) latest().receive(mid);
  await eventually(() => room.peerConnections.length === 1, 'only the newest is left');
  assert.deepEqual(log, ['trackSwitched audio trk_a2 par_b audio', 'trackSwitched video trk_v2 par_b video']);
  assert.equal(old.connectionState, 'closed');
});

test('told twice, or told of a move that was before the join: nothing is done twice', async (context) => {
  const { server, room } = await setUp(context);
  server.send('session.moving', { epoch: 1, deadline: Date.now() + 30_000 });
  move(server);
  move(server);
  await eventually(() => room.peerConnections.length === 2, 'both');
  move(server);
  await pause(500);
  assert.equal(server.calls.join.length, 2);
});

test('leaving in the middle of a move ends both connections', async (context) => {
  const { server, room, old } = await setUp(context);
  move(server);
  await eventually(() => room.peerConnections.length === 2, 'both');
  await room.leave();
  assert.equal(old.connectionState, 'closed');
  assert.equal(latest().connectionState, 'closed');
  assert.equal(server.calls.leave.length, 1);
});
