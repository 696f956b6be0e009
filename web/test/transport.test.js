import assert from 'node:assert/strict';
import test from 'node:test';

import { Api } from '../sdk/api.js';
import { EndpointApi, ParticipantApi } from '../sdk/participant-api.js';
import { EventChannel } from '../sdk/transport/index.js';
import { Inbox } from '../sdk/transport/dedupe.js';
import { SseParser } from '../sdk/transport/sse.js';
import { EventServer } from './support/event-server.js';
import { eventually } from './support/index.js';

/** A channel to a fresh server; both are ended with the test. */
async function setUp(context, { broken = {}, transport, instances = 1 } = {}) {
  const servers = [];
  for (let index = 0; index < instances; index += 1) servers.push(await EventServer.start());
  const [server] = servers;
  server.broken = broken;
  const participant = new ParticipantApi(new Api(servers.map(({ base }) => base)), 'ses_1', 'token-1');
  participant.participantId = 'par_1';
  const api = new EndpointApi(participant, 'end_1');
  const received = [];
  const ended = [];
  const channel = new EventChannel(api, {
    transport,
    deliver: (event) => received.push(event.type),
    ended: (reason) => ended.push(reason),
    random: () => 0,
  });
  context.after(async () => {
    channel.close();
    for (const each of servers) await each.stop();
  });
  return { server, servers, channel, received, ended };
}

test('a WebSocket is tried first; events arrive in order and are confirmed', async (context) => {
  const { server, channel, received } = await setUp(context);
  server.send('early');
  channel.start();
  await eventually(() => received.length === 1, 'the event that was waiting');
  server.send('second', { text: 'x'.repeat(300) });
  server.send('third');
  await eventually(() => server.confirmed.length === 3, 'all confirmed');
  assert.deepEqual(received, ['early', 'second', 'third']);
  assert.equal(channel.transport, 'websocket');
  assert.deepEqual(server.authorizations, ['token-1']);
});

test('falls back to SSE without a WebSocket, the token in a header', async (context) => {
  const { server, channel, received } = await setUp(context, { broken: { websocket: 'refuse' } });
  channel.start();
  await eventually(() => channel.transport === 'sse', 'SSE');
  server.send('one');
  server.send('two');
  await eventually(() => received.length === 2, 'both events');
  assert.deepEqual(received, ['one', 'two']);
  assert.deepEqual(server.authorizations, ['Bearer token-1']);
});

test('falls back to polling behind a proxy that answers everything else with a page', async (context) => {
  const { server, channel, received } = await setUp(context, { broken: { websocket: 'refuse', sse: 'html' } });
  channel.start();
  await eventually(() => channel.transport === 'polling', 'polling');
  server.send('one');
  await eventually(() => received.length === 1, 'the event');
  await eventually(() => server.confirmed.length === 1, 'the next poll confirms it');
  assert.deepEqual(server.requests.slice(0, 3), ['websocket', 'sse', 'polling']);
});

for (const transport of ['websocket', 'sse', 'polling']) {
  test(`${transport}, forced: goes on after a cut, without loss and without repeats`, async (context) => {
    const { server, channel, received } = await setUp(context, { transport });
    channel.start();
    await eventually(() => server.readers === 1, 'a reader');
    server.send('one');
    await eventually(() => received.length === 1, 'the first event');
    server.cut();
    server.send('two');
    await eventually(() => received.length === 2, 'the event sent meanwhile');
    server.send('three');
    await eventually(() => received.length === 3, 'the event after it');
    assert.deepEqual(received, ['one', 'two', 'three']);
    assert.ok(server.requests.every((name) => name === transport), 'no other transport was used');
  });
}

test('an event that comes twice, because the first confirmation was lost, is delivered once', async (context) => {
  const { server, channel, received } = await setUp(context, { transport: 'polling' });
  channel.start();
  await eventually(() => server.readers === 1, 'a reader');
  const event = server.send('one');
  await eventually(() => server.confirmed.length === 1, 'confirmed');
  server.queue.push(event); // requeued by the broker, as after the loss of an API instance
  server.send('two');
  await eventually(() => received.includes('two'), 'the next event');
  assert.deepEqual(received, ['one', 'two']);
});

test('consecutive requests alternate between the API instances', async (context) => {
  const { servers, channel } = await setUp(context, { transport: 'polling', instances: 2 });
  channel.start();
  await eventually(() => servers[1].readers === 1, 'a waiting poll at the second');
  servers[1].send('one');
  await eventually(() => servers[0].readers === 1, 'the next at the first');
  servers[0].send('two');
  await eventually(() => servers[1].requests.length >= 2, 'and back');
});

test('a transport that opens and is cut off at once is left for the next, with pauses', async (context) => {
  const { server, channel } = await setUp(context, { broken: { websocket: 'close:1011' } });
  channel.start();
  await eventually(() => channel.transport === 'sse', 'SSE');
  assert.deepEqual(server.requests, ['websocket', 'websocket', 'sse']);
});

for (const [code, reason] of [
  [4001, 'gone'],
  [4002, 'unauthorized'],
  [4004, 'unauthorized'],
  [4003, 'gone'],
]) {
  test(`WebSocket close ${code} ends the channel: ${reason}`, async (context) => {
    const { channel, ended } = await setUp(context, { broken: { websocket: `close:${code}` } });
    channel.start();
    await eventually(() => ended.length === 1, 'the end');
    assert.deepEqual(ended, [reason]);
  });
}

test('being taken over is tried once more, then accepted', async (context) => {
  const { server, channel, ended } = await setUp(context, { broken: { websocket: 'close:4000' } });
  channel.start();
  await eventually(() => ended.length === 1, 'the end');
  assert.deepEqual(ended, ['taken_over']);
  assert.equal(server.requests.length, 2);
});

for (const [status, reason] of [
  ['401:unauthorized', 'unauthorized'],
  ['404:participant_not_found', 'gone'],
  ['410:endpoint_gone', 'gone'],
  ['410:session_closed', 'session_closed'],
]) {
  for (const transport of ['sse', 'polling']) {
    test(`${transport}: status ${status} ends the channel: ${reason}`, async (context) => {
      const { channel, ended } = await setUp(context, { transport, broken: { [transport]: `status:${status}` } });
      channel.start();
      await eventually(() => ended.length === 1, 'the end');
      assert.deepEqual(ended, [reason]);
    });
  }
}

test('each transport asks for the events of its endpoint', async (context) => {
  for (const transport of ['websocket', 'sse', 'polling']) {
    const { server, channel, received } = await setUp(context, { transport });
    server.send('one');
    channel.start();
    await eventually(() => received.length === 1, `an event by ${transport}`);
    assert.deepEqual([...server.endpoints], ['end_1'], transport);
  }
});

test('an outage is waited out, however many tries it takes', async (context) => {
  const { server, channel, received, ended } = await setUp(context, { transport: 'polling', broken: { polling: 'refuse' } });
  channel.start();
  await eventually(() => server.requests.length >= 4, 'tries');
  server.broken = {};
  server.send('one');
  await eventually(() => received.length === 1, 'the event after it');
  assert.deepEqual(ended, []);
});

test('an unknown transport is a mistake of the caller', () => {
  const api = new EndpointApi(new ParticipantApi(new Api(['http://127.0.0.1:1']), 'ses_1', 't'));
  assert.throws(() => new EventChannel(api, { transport: 'pigeon', deliver() {}, ended() {} }), TypeError);
});

test('the inbox drops repeats and what is no event, and remembers the last as cursor', () => {
  const delivered = [];
  const inbox = new Inbox((event) => delivered.push(event.id));
  assert.equal(inbox.cursor, null);
  for (const event of [{ id: 'evt_1', type: 'a' }, { id: 'evt_2', type: 'b' }, { id: 'evt_1', type: 'a' }]) inbox.take(event);
  for (const hostile of [null, undefined, {}, { id: 5, type: 'a' }, { id: 'evt_3' }, 'text']) inbox.take(hostile);
  assert.deepEqual(delivered, ['evt_1', 'evt_2']);
  assert.equal(inbox.cursor, 'evt_2');
});

test('the inbox forgets old ids, but never within a poll', () => {
  let delivered = 0;
  const inbox = new Inbox(() => (delivered += 1));
  for (let number = 0; number < 5000; number += 1) inbox.take({ id: `evt_${number}`, type: 'a' });
  for (let number = 4500; number < 5000; number += 1) inbox.take({ id: `evt_${number}`, type: 'a' });
  assert.equal(delivered, 5000);
});

test('the event stream is read alike however it is cut', () => {
  const stream = ': comment\n\nid: evt_1\nevent: a\ndata: {"n":1}\n\ndata: two\r\ndata: lines\r\n\r\ndata:tight\rid: x\r\r';
  const whole = [];
  new SseParser((data) => whole.push(data)).push(`${stream}: end`);
  assert.deepEqual(whole, ['{"n":1}', 'two\nlines', 'tight']);
  for (let size = 1; size < 8; size += 1) {
    const pieces = [];
    const parser = new SseParser((data) => pieces.push(data));
    for (let at = 0; at < stream.length; at += size) parser.push(stream.slice(at, at + size));
    parser.push(': end');
    assert.deepEqual(pieces, whole, `in pieces of ${size}`);
  }
});
