import assert from 'node:assert/strict';
import test from 'node:test';

import { decode, encode, fromEvent } from '../sdk/frames.js';
import { Room } from '../sdk/room.js';
import { FakePeerConnection, FakeTrack } from './support/fake-media.js';
import { eventually } from './support/index.js';
import { RoomServer } from './support/room-server.js';

globalThis.RTCPeerConnection = FakePeerConnection;

const bob = { id: 'par_bob', name: 'Bob', state: 'connected', joined_at: 0, tracks: [] };

/** A room whose connection stands, and everything that it hears. */
async function inRoom(context, options = {}) {
  const server = await RoomServer.start();
  context.after(() => server.stop());
  server.others = [bob];
  const room = await Room.join(server.link, { transport: 'polling', name: 'Ada', ...options });
  context.after(() => room.leave());
  const heard = [];
  room.on('message', (message) => heard.push(message));
  const peer = FakePeerConnection.made.at(-1);
  return { server, room, heard, peer };
}

const framesOf = (peer, label = 'reliable') => peer.channel(label).sent.map((frame) => (typeof frame === 'string' ? JSON.parse(frame) : frame));

test('a frame is read as it was written, text and bytes', () => {
  const text = encode({ data: { a: [1, 'ü'] }, to: ['par_bob'], topic: 'chat', id: 'msg_1', events: true });
  assert.deepEqual(JSON.parse(text), { to: ['par_bob'], topic: 'chat', id: 'msg_1', events: true, data: { a: [1, 'ü'] } });
  assert.equal(JSON.parse(encode({ data: undefined, id: 'msg_1' })).data, null);
  const bytes = encode({ data: new Uint8Array([9, 0, 255, 1]).subarray(1), topic: 'cursor', id: 'msg_2' });
  assert.deepEqual(decode(bytes.buffer), { topic: 'cursor', id: 'msg_2', data: new Uint8Array([0, 255, 1]).buffer });
  assert.deepEqual(fromEvent({ from: 'par_bob', binary: true, data: 'AP8B' }).data, new Uint8Array([0, 255, 1]).buffer);
});

test('what is no frame is none, whatever its bytes', () => {
  for (const frame of ['', '[1]', '7', 'null', '{', new ArrayBuffer(0), new ArrayBuffer(1), new Uint8Array([0, 9, 1]).buffer, null, 5]) {
    assert.equal(decode(frame), null);
  }
  let seed = 7;
  const random = () => (seed = (seed * 48_271) % 0x7fffffff);
  for (let round = 0; round < 2000; round += 1) {
    const bytes = Uint8Array.from({ length: random() % 40 }, () => random() % 256);
    if (bytes.length > 1 && round % 2) bytes.set([0, random() % 38]);
    decode(bytes.buffer);
    decode(String.fromCharCode(...bytes));
  }
});

test('channels are in the first offer, also of who publishes nothing', async (context) => {
  const { server, peer } = await inRoom(context);
  assert.deepEqual(peer.channels.map(({ label }) => label), ['reliable', 'lossy']);
  assert.deepEqual(peer.channel('lossy').options, { protocol: 'switchyard.v1', ordered: false, maxRetransmits: 0 });
  assert.ok(server.calls.join[0].offer, 'the client offers');
});

test('a message waits for its channel, and a lossy one does not', async (context) => {
  const { room, peer } = await inRoom(context);
  const waiting = room.sendMessage('hello', { topic: 'chat' });
  assert.equal(await room.sendMessage([1], { reliable: false }), false);
  peer.become('connected');
  assert.equal(await waiting, true);
  assert.equal(await room.sendMessage([2], { reliable: false, to: ['par_bob'] }), true);
  const [{ id, ...frame }] = framesOf(peer);
  assert.deepEqual(frame, { topic: 'chat', data: 'hello' });
  assert.match(id, /^msg_/);
  const [lossy] = framesOf(peer, 'lossy');
  assert.deepEqual([lossy.to, lossy.data], [['par_bob'], [2]]);
});

test('a full channel is waited for, in order and up to a bound', async (context) => {
  const { room, peer } = await inRoom(context);
  peer.become('connected');
  const channel = peer.channel('reliable');
  channel.bufferedAmount = 1024 * 1024;
  const long = 'x'.repeat(60_000);
  const sent = Array.from({ length: 17 }, (_, index) => room.sendMessage(`${index} ${long}`));
  await assert.rejects(room.sendMessage(long), { code: 'too_many_requests' });
  await assert.rejects(room.sendMessage('x'.repeat(70_000)), { code: 'limit_exceeded' });
  assert.equal(channel.sent.length, 0);
  channel.bufferedAmount = 0;
  channel.dispatchEvent(new Event('bufferedamountlow'));
  assert.deepEqual(await Promise.all(sent), sent.map(() => true));
  assert.deepEqual(framesOf(peer).map(({ data }) => Number.parseInt(data)), sent.map((_, index) => index));
});

test('a message is told once, by channel or by event, with whoever said it', async (context) => {
  const { server, room, heard, peer } = await inRoom(context);
  peer.become('connected');
  peer.channel('reliable').receive({ from: 'par_bob', id: '1', topic: 'chat', data: 'hi' });
  peer.channel('reliable').receive({ from: 'par_bob', id: '1', topic: 'chat', data: 'hi' });
  server.send('message', { from: 'par_bob', id: '1', topic: 'chat', data: 'hi' });
  server.send('message', { id: '1', direct: true, data: { stop: true } });
  server.send('message', { from: room.localParticipant.id, id: '2', data: 'our own' });
  server.send('message', { from: 'par_bob', id: '3', binary: true, data: 'AQI=' });
  peer.channel('lossy').receive('nonsense');
  await eventually(() => heard.length === 3, 'three messages');
  assert.deepEqual(heard[0], { data: 'hi', from: 'par_bob', participant: room.participants.get('par_bob'), topic: 'chat', direct: false });
  assert.deepEqual([heard[1].from, heard[1].direct, heard[1].data], [undefined, true, { stop: true }]);
  assert.deepEqual(heard[2].data, new Uint8Array([1, 2]).buffer);
});

test('what was not sent when the connection was lost is sent by the next one', async (context) => {
  const { server, room, peer } = await inRoom(context, { tracks: [{ track: new FakeTrack('audio') }] });
  peer.become('connected');
  await room.sendMessage('before');
  server.send('endpoint.state', { endpoint_id: server.endpointId, state: 'closed' });
  await eventually(() => room.connectionState === 'reconnecting', 'the loss is noticed');
  const waiting = room.sendMessage('meanwhile');
  await eventually(() => server.endpoints.length === 2, 'it joins again');
  const next = FakePeerConnection.made.at(-1);
  assert.notEqual(next, peer);
  next.become('connected');
  assert.equal(await waiting, true);
  assert.deepEqual(framesOf(next).map(({ data }) => data), ['meanwhile']);
});

test('while the room moves a message goes by both connections, under one id', async (context) => {
  const { server, room, peer } = await inRoom(context, { tracks: [{ track: new FakeTrack('audio') }] });
  peer.become('connected');
  server.epoch += 1;
  server.send('session.moving', { epoch: server.epoch, deadline: Date.now() + 20_000 });
  await eventually(() => room.peerConnections.length === 2, 'there are two connections');
  const sent = room.sendMessage('to all of you');
  assert.equal(framesOf(peer).length, 1, 'by the old one at once');
  const next = FakePeerConnection.made.at(-1);
  next.become('connected');
  assert.equal(await sent, true);
  assert.deepEqual(framesOf(next), framesOf(peer));
});

test('a reliable channel that the server closed is opened again, and the gap is told', async (context) => {
  const { room, peer } = await inRoom(context);
  peer.become('connected');
  let missed = 0;
  room.on('messagesMissed', () => (missed += 1));
  peer.channel('reliable').close();
  const waiting = room.sendMessage('after the gap');
  await eventually(() => peer.channels.length === 3, 'it is opened again');
  peer.channel('reliable').open();
  assert.equal(await waiting, true);
  assert.equal(missed, 1);
});

test('nothing is sent from a room that was left', async (context) => {
  const { room } = await inRoom(context);
  const waiting = assert.rejects(room.sendMessage('too late'), { code: 'closed' });
  await room.leave();
  await waiting;
  await assert.rejects(room.sendMessage('later still'), { code: 'closed' });
});
