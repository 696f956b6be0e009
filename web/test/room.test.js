import assert from 'node:assert/strict';
import test from 'node:test';

import { Room } from '../sdk/room.js';
import { FakePeerConnection, FakeTrack } from './support/fake-media.js';
import { deferred, eventually } from './support/index.js';
import { RoomServer } from './support/room-server.js';

globalThis.RTCPeerConnection = FakePeerConnection;

const latest = () => FakePeerConnection.made.at(-1);

/** A room on a fresh server, events noted. */
async function setUp(context, { options = {}, others = [], iceServers = [] } = {}) {
  const server = await RoomServer.start();
  server.others = others;
  server.iceServers = iceServers;
  const room = await Room.join(server.link, { name: 'Ada', transport: 'polling', rejoinAttempts: 2, ...options });
  context.after(async () => {
    await room.leave();
    server.stop();
  });
  const log = [];
  for (const name of ['participantJoined', 'participantLeft', 'trackSubscribed', 'trackUnsubscribed', 'disconnected', 'closed']) {
    room.on(name, (...args) => log.push(`${name} ${args.map((arg) => arg.id ?? arg.kind ?? arg.code ?? arg).join(' ')}`));
  }
  room.on('connectionState', (state) => log.push(state));
  return { server, room, log };
}

const person = (id, tracks = []) => ({ id, name: id, state: 'joined', joined_at: 0, tracks });
const camera = (id) => ({ id, kind: 'video', source: 'camera', muted: false, mid: '0' });
const limits = { lastN: 4, maxBitrate: 500_000 };

test('what a client limits for itself goes with its joins, and nothing that it does not', async (context) => {
  const limited = await setUp(context, { options: limits });
  const [body] = limited.server.calls.join;
  assert.deepEqual([body.last_n, body.bitrates], [4, { max_bps: 500_000 }]);
  const free = await setUp(context);
  assert.equal('last_n' in free.server.calls.join[0] || 'bitrates' in free.server.calls.join[0], false);
});

const offerOf = (server, revision, tracks) => ({
  endpoint_id: server.endpointId,
  revision,
  sdp: JSON.stringify(tracks.map(({ mid, kind }) => ({ mid, kind }))),
  tracks,
});
const subscription = (mid, trackId) => ({ mid, track_id: trackId, participant_id: 'par_b', kind: 'video', source: 'camera' });

test('the offer travels in the join, with what is published', async (context) => {
  const audio = new FakeTrack('audio');
  const { server, room } = await setUp(context, { options: { tracks: [{ track: audio, muted: true }] } });
  const [join] = server.calls.join;
  assert.equal(join.token, 'Bearer join-token');
  assert.equal(join.server_offers, false);
  assert.equal(join.name, 'Ada');
  const [publication] = room.localParticipant.tracks.values();
  assert.deepEqual(join.offer, {
    sdp: '0 sendonly',
    tracks: [{ mid: '0', source: 'microphone', track_id: publication.id, muted: true }],
  });
  assert.equal(audio.enabled, false);
  assert.equal(room.revision, 1);
  assert.equal(room.connectionState, 'connecting');
  latest().become('connected');
  assert.equal(room.connectionState, 'connected');
});

test('with nothing to publish there is an offer all the same, and being alone counts as connected', async (context) => {
  const { server, room } = await setUp(context);
  assert.deepEqual(server.calls.join[0].offer, { sdp: '', tracks: [] });
  assert.equal(room.revision, 1);
  assert.equal(room.connectionState, 'connected');
});

test('a server offer is answered and its tracks are subscribed', async (context) => {
  const { server, log, room } = await setUp(context, { others: [person('par_b', [camera('trk_1')])] });
  server.send('offer', offerOf(server, 2, [subscription('5', 'trk_1')]));
  await eventually(() => log.includes('trackSubscribed video trk_1 par_b'), 'the subscription');
  await eventually(() => server.calls.answer.length === 1, 'the answer');
  assert.equal(server.calls.answer[0].destination, `to-${server.endpoints[0]}`);
  assert.equal(room.participants.get('par_b').tracks.get('trk_1').mid, '5');
});

test('events about another endpoint are left-overs and ignored', async (context) => {
  const { server, log } = await setUp(context, { others: [person('par_b', [camera('trk_1')])] });
  server.send('offer', { ...offerOf(server, 1, [subscription('5', 'trk_1')]), endpoint_id: 'end_old' });
  server.send('endpoint.state', { endpoint_id: 'end_old', state: 'closed' });
  server.send('participant.joined', { participant: person('par_c') });
  await eventually(() => log.includes('participantJoined par_c'), 'the event after them');
  assert.deepEqual(log, ['participantJoined par_c']);
  assert.equal(server.calls.answer.length, 0);
});

test('publish, mute, unpublish and publish again: m-line reused, server told each time', async (context) => {
  const { server, room } = await setUp(context);
  const publication = await room.localParticipant.publish(new FakeTrack('video'), { source: 'screen' });
  assert.equal(server.calls.offer[0].sdp, '0 sendonly');
  assert.equal(server.calls.offer[0].revision, 2);
  assert.equal(server.calls.offer[0].tracks[0].source, 'screen');

  await room.localParticipant.setMuted('screen', true);
  assert.equal(publication.track.enabled, false);
  assert.equal(server.calls.mute[0].muted, true);
  assert.ok(server.calls.mute[0].path.endsWith(`/tracks/${publication.id}`));

  await room.localParticipant.unpublish('screen');
  assert.equal(server.calls.offer[1].sdp, '0 inactive');
  assert.deepEqual(server.calls.offer[1].tracks, []);

  await room.localParticipant.publish(new FakeTrack('video'), { source: 'screen' });
  assert.equal(server.calls.offer[2].sdp, '0 sendonly');
  assert.notEqual(server.calls.offer[2].tracks[0].track_id, publication.id);
});

test('muting twice in a row ends as the last wish, whatever the replies do', async (context) => {
  const { server, room } = await setUp(context);
  const publication = await room.localParticipant.publish(new FakeTrack('audio'));
  await Promise.all([true, false, true].map((muted) => room.localParticipant.setMuted(publication, muted)));
  assert.equal(server.calls.mute.at(-1).muted, true);
  assert.equal(publication.serverMuted, true);
});

test('a refused publication is taken back', async (context) => {
  const { server, room } = await setUp(context);
  server.refusals.offer = [{ status: 403, code: 'forbidden' }];
  await assert.rejects(room.localParticipant.publish(new FakeTrack('audio')), { code: 'forbidden' });
  assert.equal(room.localParticipant.tracks.size, 0);
  assert.equal(room.connectionState, 'connected');
});

test('a moderator’s mute reaches the track', async (context) => {
  const { server, room } = await setUp(context);
  const publication = await room.localParticipant.publish(new FakeTrack('audio'));
  server.send('track.muted', { participant_id: 'par_me', track_id: publication.id, by_admin: true });
  await eventually(() => publication.muted, 'muted');
  assert.equal(publication.track.enabled, false);
  assert.equal(server.calls.mute.length, 0, 'the server knows already');
});

test('session.interrupted: rejoins as the same participant, everything published as it was', async (context) => {
  const tracks = [{ track: new FakeTrack('audio') }, { track: new FakeTrack('video') }];
  const { server, room, log } = await setUp(context, { options: { tracks }, others: [person('par_b', [camera('trk_1')])] });
  latest().become('connected');
  server.send('offer', offerOf(server, 2, [subscription('5', 'trk_1')]));
  await eventually(() => server.calls.answer.length === 1, 'subscribed');
  await room.localParticipant.setMuted('microphone', true);
  const before = [...room.localParticipant.tracks.keys()];
  server.epoch = 2;
  server.send('session.interrupted', { epoch: 2 });
  await eventually(() => server.calls.join.length === 2, 'the rejoin');
  await eventually(() => latest().currentRemoteDescription, 'its answer');
  latest().become('connected');
  const [, rejoin] = server.calls.join;
  assert.equal(rejoin.participant_id, 'par_me');
  assert.equal(rejoin.token, 'Bearer own-token');
  assert.deepEqual(rejoin.offer.tracks.map(({ source, muted }) => [source, muted]), [['microphone', true], ['camera', false]]);
  for (const { track_id: id } of rejoin.offer.tracks) assert.ok(!before.includes(id), 'a new track id');
  assert.deepEqual(log.filter((entry) => !entry.startsWith('track')), ['connected', 'reconnecting', 'connected']);
  assert.ok(log.includes('trackUnsubscribed video trk_1 par_b'));

  // The new connection is subscribed anew, and the same interruption told again changes nothing.
  server.send('session.interrupted', { epoch: 2 });
  server.send('offer', offerOf(server, 2, [subscription('5', 'trk_1')]));
  await eventually(() => server.calls.answer.length === 2, 'the answer of the new connection');
  assert.equal(server.calls.join.length, 2);
});

test('an event that overtakes the reply of a rejoin is newer than the list in it', async (context) => {
  const { server, room, log } = await setUp(context, { others: [person('par_b', [camera('trk_old')])] });
  const held = deferred();
  server.holding = held.promise;
  server.others = [{ ...person('par_b'), state: 'disconnected' }];
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => server.calls.join.length === 2, 'the rejoin');
  const told = [];
  room.on('serverEvent', ({ type }) => told.push(type));
  server.send('participant.joined', { participant: person('par_b', [camera('trk_new')]) });
  server.send('offer', offerOf(server, 2, [subscription('5', 'trk_new')]));
  await eventually(() => told.includes('participant.joined'), 'the event by the old endpoint, before the reply');
  assert.equal(server.calls.answer.length, 0);
  held.resolve();
  await eventually(() => log.includes('trackSubscribed video trk_new par_b'), 'the new track');
  assert.deepEqual([...room.participants.get('par_b').tracks.keys()], ['trk_new']);
  assert.equal(room.participants.get('par_b').state, 'joined');
});

test('an interruption from before the join is none', async (context) => {
  const { server, log } = await setUp(context);
  server.send('session.interrupted', { epoch: 1 });
  server.send('participant.joined', { participant: person('par_c') });
  await eventually(() => log.includes('participantJoined par_c'), 'the event after it');
  assert.equal(server.calls.join.length, 1);
  assert.equal(server.calls.candidates.length, 0);
});

/** Something comes from the media server ten times a second, until the test is over or `stop` is called. */
async function flow(context, peer) {
  const timer = setInterval(() => (peer.arrived += 1), 100);
  context.after(() => clearInterval(timer));
  await new Promise((resolve) => setTimeout(resolve, 1800)); // long enough for it to be usual
  return () => clearInterval(timer);
}

test('an interruption while media comes in is asked about first', async (context) => {
  const { server } = await setUp(context);
  await flow(context, latest());
  server.send('session.interrupted', { epoch: 2 });
  await eventually(() => server.calls.candidates.length === 1, 'the question');
  server.refusals.candidates = [{ status: 410, code: 'endpoint_gone' }];
  server.send('session.interrupted', { epoch: 3 });
  await eventually(() => server.calls.join.length === 2, 'the rejoin, once it is true');
});

test('silence is asked about; a media server that is gone is left within seconds', async (context) => {
  const { server, log } = await setUp(context);
  const stop = await flow(context, latest());
  assert.equal(server.calls.candidates.length, 0, 'nothing is asked while media comes');
  server.refusals.candidates = [{ status: 503, code: 'unavailable' }, { status: 410, code: 'endpoint_gone' }];
  const since = Date.now();
  stop();
  await eventually(() => server.calls.join.length === 2, 'the rejoin');
  assert.equal(server.calls.candidates.length, 2, 'an answer that says nothing is followed by another question');
  assert.ok(Date.now() - since < 6000, `${Date.now() - since} ms`);
  await eventually(() => log.at(-1) === 'connected', 'connected again');
});

test('silence of a media server that is there is the path’s: it is renewed, and not again at every question', async (context) => {
  const { server, log } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }] } });
  const peer = latest();
  peer.become('connected');
  const stop = await flow(context, peer);
  assert.equal(peer.iceRestarts, 0);
  stop();
  await eventually(() => server.calls.offer.length === 1, 'the offer of the restart');
  await eventually(() => server.calls.candidates.length >= 2, 'the next question');
  assert.equal(peer.iceRestarts, 1);
  assert.equal(peer.connectionState, 'connected', 'long before the browser says anything');
  assert.deepEqual([server.calls.join.length, log], [1, ['connected']]);
});

test('a command answered endpoint_gone while media comes in: the old connection stays until the new has joined', async (context) => {
  const tracks = [{ track: new FakeTrack('audio') }];
  const { server, room, log } = await setUp(context, { options: { tracks }, others: [person('par_b', [camera('trk_1')])] });
  const old = latest();
  old.become('connected');
  server.send('offer', offerOf(server, 2, [subscription('5', 'trk_1')]));
  await eventually(() => log.includes('trackSubscribed video trk_1 par_b'), 'the subscription');
  await flow(context, old);
  server.refusals.mute = [{ status: 410, code: 'endpoint_gone' }];
  server.refusals.join = Array(3).fill({ status: 503, code: 'unavailable' }); // more than would be tried without media
  room.localParticipant.setMuted('microphone', true);
  await eventually(() => server.calls.join.length === 5, 'the rejoin, at last');
  await eventually(() => room.peerConnection !== old, 'the new connection');
  assert.equal(server.calls.join[4].offer.tracks[0].muted, true);
  assert.deepEqual(log, ['connected', 'trackSubscribed video trk_1 par_b'], 'nobody noticed');
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed', reason: 'replaced' });
  await eventually(() => room.peerConnections.length === 1, 'the old one is closed');
  assert.equal(old.connectionState, 'closed');
  assert.ok(!log.includes('closed taken_over'));
});

test('media that ends while another endpoint is sought is an interruption like any other', async (context) => {
  const { server, room, log } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }], rejoinAttempts: 99 } });
  latest().become('connected');
  const stop = await flow(context, latest());
  server.refusals.mute = [{ status: 410, code: 'endpoint_gone' }];
  server.refusals.join = Array(4).fill({ status: 503, code: 'unavailable' });
  room.localParticipant.setMuted('microphone', true);
  await eventually(() => server.calls.join.length === 2, 'a try');
  assert.equal(room.connectionState, 'connected');
  stop();
  await eventually(() => room.connectionState === 'reconnecting', 'the end of the media');
  await eventually(() => server.calls.join.length === 6, 'the rejoin');
  await eventually(() => room.peerConnection?.currentRemoteDescription, 'its answer');
  latest().become('connected');
  assert.deepEqual(log, ['connected', 'reconnecting', 'connected']);
});

test('an endpoint that is closed before its join reply is there leads to another rejoin', async (context) => {
  const { server, room } = await setUp(context);
  const held = deferred();
  server.holding = held.promise;
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => server.calls.join.length === 2, 'the rejoin');
  server.send('endpoint.state', { endpoint_id: server.endpoints[1], state: 'closed' });
  held.resolve();
  await eventually(() => server.calls.join.length === 3, 'another rejoin');
  await eventually(() => room.connectionState === 'connected', 'connected');
});

for (const [name, lose] of [
  ['endpoint.state closed', (server) => server.send('endpoint.state', { endpoint_id: server.endpointId, state: 'closed' })],
  ['a request answered endpoint_gone', (server, room) => {
    server.refusals.offer = [{ status: 410, code: 'endpoint_gone' }];
    room.renegotiate().catch(() => {});
  }],
  ['a mute answered endpoint_gone', (server, room) => {
    server.refusals.mute = [{ status: 410, code: 'endpoint_gone' }];
    room.localParticipant.setMuted('microphone', true);
  }],
  ['an event stream that ended', (server) => server.forget(server.endpointId)],
  ['a closed connection', () => latest().become('closed')],
]) {
  test(`${name} leads to a rejoin`, async (context) => {
    const { server, room } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }] } });
    latest().become('connected');
    lose(server, room);
    await eventually(() => server.calls.join.length === 2, 'the rejoin');
    assert.equal(server.calls.join[1].participant_id, 'par_me');
  });
}

test('a publication made while reconnecting resolves with the rejoin that carries it', async (context) => {
  const { server, room } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }] } });
  let published;
  room.on('connectionState', (state) => {
    if (state === 'reconnecting') published = room.localParticipant.publish(new FakeTrack('video'));
  });
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => published, 'reconnecting');
  await published;
  assert.deepEqual(server.calls.join[1].offer.tracks.map(({ source }) => source), ['microphone', 'camera']);
});

test('failing and failed paths get an ICE restart', async (context) => {
  const { server } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }] } });
  const peer = latest();
  peer.become('connected');
  peer.become('failed');
  await eventually(() => server.calls.offer.length === 1, 'the offer of the restart');
  assert.equal(peer.iceRestarts, 1);
  peer.become('connected');
  peer.become('disconnected');
  await eventually(() => peer.iceRestarts === 2, 'the restart after a moment');
  assert.equal(server.calls.join.length, 1, 'no rejoin for that');
});

test('relays that the join reply names are used when no direct path is found', async (context) => {
  const iceServers = [{ urls: ['turn:relay.example'], username: 'u', credential: 'c' }];
  const { server } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }] }, iceServers });
  const peer = latest();
  assert.deepEqual(peer.getConfiguration().iceServers, iceServers);
  await eventually(() => peer.iceRestarts === 1, 'gathering again, with the relays');
  await eventually(() => server.calls.offer.length === 1, 'the offer of the restart');
});

test('by relays alone it gathers again as soon as it knows of any', async (context) => {
  const timers = context.mock.method(globalThis, 'setTimeout');
  await setUp(context, { iceServers: [{ urls: ['turn:relay.example.org'] }], options: { relayOnly: true, tracks: [{ track: new FakeTrack('audio') }] } });
  const peer = latest();
  assert.equal(peer.getConfiguration().iceTransportPolicy, 'relay');
  await eventually(() => peer.iceRestarts === 1, 'gathering again, with the relays');
  assert.ok(!timers.mock.calls.some(({ arguments: [, patience] }) => patience === 2500), 'without waiting for paths that there cannot be');
});

test('a restart late in a call asks for credentials that are good again, one before that does not', async (context) => {
  const relay = (/** @type {number} */ ttl) => [{ urls: ['turn:relay.example'], username: `${Math.floor(Date.now() / 1000) + ttl}:par_me`, credential: 'c' }];
  const options = { tracks: [{ track: new FakeTrack('audio') }] };
  const early = await setUp(context, { options, iceServers: relay(3600) });
  latest().become('connected');
  latest().become('failed');
  await eventually(() => early.server.calls.offer.length === 1, 'the offer of the restart');
  assert.equal(early.server.calls['ice-servers'].length, 0);

  const late = await setUp(context, { options, iceServers: relay(30) });
  const peer = latest();
  const fresh = (late.server.iceServers = relay(3600));
  peer.become('connected');
  peer.become('failed');
  await eventually(() => late.server.calls.offer.length === 1, 'the offer of the restart');
  assert.deepEqual(peer.getConfiguration().iceServers, fresh);
  assert.equal(late.server.calls['ice-servers'].length, 1);
});

test('a restart goes on without fresh credentials when nobody gives any', async (context) => {
  const iceServers = [{ urls: ['turn:relay.example'], username: '1:par_me', credential: 'c' }];
  const { server } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }] }, iceServers });
  server.refusals['ice-servers'] = [{ status: 503, code: 'unavailable' }];
  latest().become('connected');
  latest().become('failed');
  await eventually(() => server.calls.offer.length === 1, 'the offer of the restart');
  assert.equal(server.calls['ice-servers'].length, 1);
});

test('a path that comes back by itself is left alone', async (context) => {
  const { server } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }] } });
  const peer = latest();
  peer.become('connected');
  peer.become('disconnected');
  peer.become('connected');
  await new Promise((resolve) => setTimeout(resolve, 1700)); // longer than the patience with "disconnected"
  assert.equal(peer.iceRestarts, 0);
  assert.equal(server.calls.offer.length, 0);
});

test('gives up after a bounded number of tries, and reconnects when asked', async (context) => {
  const { server, room, log } = await setUp(context);
  server.refusals.join = Array(2).fill({ status: 503, code: 'unavailable' });
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => log.includes('disconnected unavailable'), 'giving up');
  assert.equal(room.connectionState, 'disconnected');
  assert.equal(server.calls.join.length, 3);
  room.reconnect();
  await eventually(() => room.connectionState === 'connected', 'reconnected');
});

test('a join that nobody gets to is given up in time, and asked for anew by the button', async (context) => {
  const { server, room, log } = await setUp(context, { options: { rejoinAttempts: 99, rejoinPatience: 3000 } });
  server.pending = true;
  const since = Date.now();
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => log.includes('disconnected expired'), 'giving up');
  assert.ok(Date.now() - since >= 2900, `${Date.now() - since} ms`);
  server.pending = false;
  room.reconnect();
  await eventually(() => room.connectionState === 'connected', 'reconnected');
});

test('an expired participant token falls back to the join link', async (context) => {
  const { server, room } = await setUp(context);
  server.refusals.join = [{ status: 401, code: 'unauthorized' }];
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => server.calls.join.length === 3, 'the second try');
  assert.deepEqual(server.calls.join.map(({ token }) => token), ['Bearer join-token', 'Bearer own-token', 'Bearer join-token']);
  await eventually(() => room.connectionState === 'connected', 'connected');
});

test('a link that may not take over who we were lets us in as someone new, with new events', async (context) => {
  const { server, room, log } = await setUp(context);
  server.refusals.join = [{ status: 401, code: 'unauthorized' }, { status: 409, code: 'participant_conflict' }];
  const attempts = server.calls.join;
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => room.connectionState === 'disconnected', 'the two tries that are allowed here');
  room.reconnect();
  await eventually(() => room.connectionState === 'connected', 'connected');
  assert.equal(attempts.at(-1).participant_id, undefined);
  assert.equal(room.localParticipant.id, 'par_again');
  server.send('participant.joined', { participant: person('par_c') });
  await eventually(() => log.includes('participantJoined par_c'), 'an event of the new participant');
});

for (const [name, type, data, reason] of [
  ['removed by a moderator', 'participant.left', { participant_id: 'par_me', reason: 'removed' }, 'removed'],
  ['the session is closed', 'session.closed', {}, 'session_closed'],
]) {
  test(`${name}: closed for good, nothing is tried again`, async (context) => {
    const { server, room, log } = await setUp(context);
    server.send(type, data);
    await eventually(() => log.includes(`closed ${reason}`), 'closed');
    assert.equal(room.connectionState, 'closed');
    assert.equal(latest().connectionState, 'closed');
    room.reconnect();
    assert.equal(server.calls.join.length, 1);
    await assert.rejects(room.localParticipant.publish(new FakeTrack('audio')), { code: 'closed' });
  });
}

test('someone else with the same personal link: closed, and the participant is left alone', async (context) => {
  const { server, room, log } = await setUp(context, { options: { tracks: [{ track: new FakeTrack('audio') }] } });
  const own = [...room.localParticipant.tracks.values()].map(({ id }) => camera(id));
  server.send('participant.joined', { participant: person('par_me', own) }); // our own join, told to everyone
  const held = deferred();
  server.holding = held.promise;
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => server.calls.join.length === 2, 'a rejoin on its way');
  server.send('participant.joined', { participant: person('par_me', [camera('trk_foreign')]) });
  held.resolve();
  await eventually(() => log.includes('closed taken_over'), 'closed');
  assert.equal(server.calls.join.length, 2);
  assert.equal(server.calls.leave.length, 0);
});

test('an endpoint that somebody else replaced is not taken back', async (context) => {
  const { server, log } = await setUp(context);
  server.send('endpoint.state', { endpoint_id: server.endpointId, state: 'closed', reason: 'replaced' });
  await eventually(() => log.includes('closed taken_over'), 'closed');
  assert.equal(server.calls.join.length, 1);
  assert.equal(server.calls.leave.length, 0);
});

test('an endpoint replaced by a join of ours whose reply was lost is joined again', async (context) => {
  const { server, room } = await setUp(context);
  server.cutJoins = 1;
  const [first] = server.endpoints;
  server.send('endpoint.state', { endpoint_id: first, state: 'closed', reason: 'connection_lost' });
  await eventually(() => room.connectionState === 'connected' && server.calls.join.length === 3, 'joined by the third');
  server.send('endpoint.state', { endpoint_id: server.endpointId, state: 'closed', reason: 'replaced' }); // by the second, late
  await eventually(() => server.calls.join.length === 4, 'the rejoin');
});

test('a session that is gone while reconnecting ends the room', async (context) => {
  const { server, log } = await setUp(context);
  server.refusals.join = [{ status: 410, code: 'session_closed' }];
  server.send('endpoint.state', { endpoint_id: server.endpoints[0], state: 'closed' });
  await eventually(() => log.includes('closed session_closed'), 'closed');
});

test('leaving tells the server once and closes everything', async (context) => {
  const { server, room, log } = await setUp(context);
  await Promise.all([room.leave(), room.leave()]);
  assert.equal(server.calls.leave.length, 1);
  assert.equal(server.calls.leave[0].token, 'Bearer own-token');
  assert.deepEqual(log, ['closed', 'closed left']);
  assert.equal(latest().connectionState, 'closed');
});

test('a refused join rejects with the server’s code', async (context) => {
  const server = await RoomServer.start();
  context.after(() => server.stop());
  server.refusals.join = [{ status: 401, code: 'unauthorized', detail: 'expired' }];
  await assert.rejects(Room.join(server.link, {}), { code: 'unauthorized', message: 'expired' });
  assert.equal(latest().connectionState, 'closed');
});

test('audio or video without devices is said by name', async (context) => {
  const server = await RoomServer.start();
  context.after(() => server.stop());
  await assert.rejects(Room.join(server.link, { audio: true }), { code: 'no_devices' });
});

test('a camera goes out in several sizes, a screen in one, and neither takes the m-line of the other', async (context) => {
  const [face, screen] = [new FakeTrack('video'), new FakeTrack('video')];
  const { room } = await setUp(context, { options: { tracks: [{ track: face }] } });
  latest().become('connected');
  const lines = () => latest().getTransceivers().map(({ direction, sendEncodings }) => `${direction} ${sendEncodings.length}`);
  assert.deepEqual(lines(), ['sendonly 3']);
  await room.localParticipant.unpublish('camera');
  await room.localParticipant.publish(screen, { source: 'screen' });
  assert.deepEqual(lines(), ['inactive 3', 'sendonly 0']);
  await room.localParticipant.publish(face);
  assert.deepEqual(lines(), ['sendonly 3', 'sendonly 0']);
});

test('who speaks is what the server says, ourselves included', async (context) => {
  const { server, room } = await setUp(context, { others: [person('par_b'), person('par_c')] });
  const told = [];
  room.on('activeSpeakers', (speakers) => told.push(speakers.map(({ id }) => id)));
  const tell = (...ids) => server.send('speakers.changed', { speakers: ids.map((id) => ({ participant_id: id, track_id: 'trk', level: 0.5 })) });
  tell('par_c', 'par_me');
  await eventually(() => told.length === 1, 'the first list');
  assert.equal(room.localParticipant.speaking, true);
  assert.equal(room.participants.get('par_c').speaking, true);
  tell('par_gone', 'par_b');
  await eventually(() => told.length === 2, 'the second list');
  tell();
  await eventually(() => told.length === 3, 'silence');
  assert.deepEqual(told, [['par_c', 'par_me'], ['par_b'], []], 'the leader first, and nobody who is not there');
  assert.equal(room.localParticipant.speaking, false);
});

test('how good a connection is, is known of everyone and forgotten with the connection', async (context) => {
  const { server, room } = await setUp(context, { others: [person('par_b')] });
  const changes = [];
  room.on('qualityChanged', ({ id, quality }) => changes.push(`${id} ${quality}`));
  const other = room.participants.get('par_b');
  assert.equal(other.quality, 'excellent');
  const tell = (...pairs) => server.send('quality.changed', { participants: pairs.map(([id, quality]) => ({ participant_id: id, quality })) });
  tell(['par_b', 'poor'], ['par_gone', 'lost'], ['par_me', 'good']);
  tell(['par_b', 'poor'], ['par_me', 'excellent']);
  await eventually(() => changes.length === 3, 'the changes');
  assert.deepEqual(changes, ['par_b poor', 'par_me good', 'par_me excellent']);
  server.send('participant.joined', { participant: person('par_b') });
  await eventually(() => other.quality === 'excellent', 'a new connection');
});

test('the server’s figures are asked of the endpoint, and a rating is for the last one', async (context) => {
  const { server, room } = await setUp(context);
  assert.equal((await room.serverStats()).state, 'connected');
  const destination = `to-${server.endpointId}`;
  assert.deepEqual(server.calls.stats.map(({ path, ...call }) => [path.split('/').at(-1), call.destination, call.token]), [
    ['stats', destination, 'Bearer own-token'],
  ]);
  await room.leave();
  assert.equal(await room.serverStats(), null);
  await room.rate({ stars: 4, comment: 'fine' });
  const [{ path, token, ...rating }] = server.calls.rating;
  assert.deepEqual(rating, { stars: 4, comment: 'fine', destination });
  assert.match(path, /\/participants\/par_me\/rating$/);
  assert.equal(token, 'Bearer own-token');
  server.refusals.rating = [{ status: 410, code: 'session_closed' }];
  await assert.rejects(room.rate({ stars: 1 }), { code: 'session_closed' });
});
