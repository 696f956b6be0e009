import assert from 'node:assert/strict';
import http from 'node:http';
import test from 'node:test';

import { Api } from '../sdk/api.js';
import { EndpointApi, ParticipantApi } from '../sdk/participant-api.js';
import { parseJoinLink } from '../sdk/link.js';
import { newId } from '../sdk/ids.js';
import { eventually } from './support/index.js';

/** A real server that answers with `replies`, one after the other, the last for ever. */
async function setUp(context, ...replies) {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    let body = '';
    for await (const piece of request) body += piece;
    requests.push({ method: request.method, url: request.url, headers: request.headers, body: body && JSON.parse(body) });
    const reply = replies[Math.min(requests.length, replies.length) - 1];
    if (reply === 'cut') {
      request.socket.destroy();
      return;
    }
    response.writeHead(reply.status, reply.headers ?? {}).end(reply.body === undefined ? '' : JSON.stringify(reply.body));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const base = `http://127.0.0.1:${server.address().port}`;
  const api = new Api([base], { random: () => 0 });
  const participant = new ParticipantApi(api, 'ses_1', 'join-token');
  return { base, api, participant, requests };
}

const problem = (status, code, headers) => ({ status, headers, body: { title: 'no', status, code, detail: 'because' } });

test('a problem body becomes an error with its code, status and Retry-After', async (context) => {
  const { api } = await setUp(context, problem(410, 'endpoint_gone', { 'Retry-After': '7' }));
  await assert.rejects(api.request('POST', '/v1/x', { body: {} }), {
    name: 'SwitchyardError',
    code: 'endpoint_gone',
    status: 410,
    retryAfter: 7,
    message: 'because',
  });
});

test('an error that is no problem body, a proxy’s page, still has a status', async (context) => {
  const { api } = await setUp(context, { status: 418 });
  await assert.rejects(api.request('GET', '/v1/x'), { code: 'http_418', status: 418 });
});

test('503 and lost replies are tried again with the same key', async (context) => {
  const { api, requests } = await setUp(context, problem(503, 'unavailable'), 'cut', { status: 200, body: { ok: true } });
  const reply = await api.request('POST', '/v1/x', { body: { a: 1 }, token: 't' });
  assert.deepEqual(reply, { status: 200, body: { ok: true } });
  assert.equal(requests.length, 3);
  const keys = new Set(requests.map(({ headers }) => headers['idempotency-key']));
  assert.equal(keys.size, 1);
  assert.match([...keys][0], /^cmd_[0-9a-f]{8}-[0-9a-f]{4}-7/);
  assert.equal(requests[2].headers.authorization, 'Bearer t');
});

test('retries are bounded', async (context) => {
  const { api, requests } = await setUp(context, problem(503, 'unavailable'));
  await assert.rejects(api.request('POST', '/v1/x', { attempts: 3 }), { code: 'unavailable' });
  assert.equal(requests.length, 3);
});

test('a refusal is not tried again', async (context) => {
  const { api, requests } = await setUp(context, problem(409, 'offer_collision'));
  await assert.rejects(api.request('POST', '/v1/x'), { code: 'offer_collision' });
  assert.equal(requests.length, 1);
});

test('Retry-After is waited out', async (context) => {
  const { api } = await setUp(context, problem(429, 'too_many_requests', { 'Retry-After': '1' }), { status: 204 });
  const began = Date.now();
  await api.request('POST', '/v1/x');
  assert.ok(Date.now() - began >= 1000);
});

test('an unreachable server is a network error, not an exception of fetch', async () => {
  const api = new Api(['http://127.0.0.1:1'], { random: () => 0 });
  await assert.rejects(api.request('GET', '/v1/x', { attempts: 1 }), { code: 'network', status: 0 });
});

test('a request that the caller cancels ends at once', async (context) => {
  const { api } = await setUp(context, problem(503, 'unavailable', { 'Retry-After': '9' }));
  const abort = new AbortController();
  const rejected = assert.rejects(api.request('POST', '/v1/x', { signal: abort.signal }), { code: 'aborted' });
  const began = Date.now();
  setTimeout(() => abort.abort(), 50);
  await rejected;
  assert.ok(Date.now() - began < 3000);
});

const joined = {
  status: 201,
  body: { participant: { id: 'par_1' }, endpoint_id: 'end_1', destination: 'here', token: 'own-token' },
};

test('a join that takes too long is asked for again with the same key', async (context) => {
  const { participant, requests } = await setUp(context, { status: 202, body: { command_id: 'cmd_1' } }, joined);
  await participant.join({ name: 'Ada' });
  assert.equal(requests.length, 2);
  assert.equal(requests[0].headers['idempotency-key'], requests[1].headers['idempotency-key']);
  assert.deepEqual(requests[0].body, { name: 'Ada' });
});

test('after a join, requests carry the participant token and the destination', async (context) => {
  const { participant, requests } = await setUp(context, joined, { status: 204 });
  const endpoint = new EndpointApi(participant);
  endpoint.joined(await participant.join({ endpoint_id: endpoint.id }));
  await endpoint.candidates([{ candidate: '' }]);
  assert.equal(requests[1].url, '/v1/sessions/ses_1/participants/par_1/candidates');
  assert.equal(requests[1].headers.authorization, 'Bearer own-token');
  assert.deepEqual(requests[1].body, { candidates: [{ candidate: '' }], destination: 'here' });
});

test('a rejoin names its participant', async (context) => {
  const { participant, requests } = await setUp(context, joined);
  await participant.join({});
  await participant.join({});
  assert.equal(requests[1].body.participant_id, 'par_1');
  assert.equal(requests[1].headers.authorization, 'Bearer own-token');
  assert.notEqual(requests[0].headers['idempotency-key'], requests[1].headers['idempotency-key']);
});

test('202 waits for command.completed and gives its result', async (context) => {
  const { participant, requests } = await setUp(context, joined, { status: 202, body: { command_id: 'cmd_9' } });
  const endpoint = new EndpointApi(participant);
  endpoint.joined(await participant.join({ endpoint_id: endpoint.id }));
  const result = endpoint.setMuted('trk_1', true);
  await eventually(() => requests.length === 2, 'the request');
  endpoint.completed({ command_id: 'cmd_other', status: 200, result: {} });
  endpoint.completed({ command_id: 'cmd_9', status: 200, result: { muted: true } });
  assert.deepEqual(await result, { muted: true });
});

test('a result that overtakes its 202 is not lost', async (context) => {
  const { participant } = await setUp(context, joined, { status: 202, body: { command_id: 'cmd_9' } });
  const endpoint = new EndpointApi(participant);
  endpoint.joined(await participant.join({ endpoint_id: endpoint.id }));
  endpoint.completed({ command_id: 'cmd_9', status: 410, result: { code: 'endpoint_gone', detail: 'gone' } });
  await assert.rejects(endpoint.setMuted('trk_1', true), { code: 'endpoint_gone', status: 410 });
});

test('a probe tells there from gone, and both from not known', async (context) => {
  const answers = [
    [{ status: 204 }, 'there'],
    [problem(410, 'endpoint_gone'), 'gone'],
    [problem(503, 'unavailable'), 'unknown'],
    [{ status: 202, body: { command_id: 'cmd_1' } }, 'unknown'],
    ['cut', 'unknown'],
  ];
  for (const [reply, verdict] of answers) {
    const { participant, requests } = await setUp(context, joined, reply);
    const endpoint = new EndpointApi(participant);
    endpoint.joined(await participant.join({ endpoint_id: endpoint.id }));
    assert.equal(await endpoint.probe(), verdict);
    assert.equal(requests.length, 2, 'asked once');
    assert.equal(requests[1].headers.prefer, 'wait=1');
  }
});

test('several instances are asked in turn', async (context) => {
  const first = await setUp(context, { status: 204 });
  const second = await setUp(context, { status: 204 });
  const api = new Api([first.base, `${second.base}/`]);
  for (let round = 0; round < 4; round += 1) await api.request('DELETE', '/v1/x');
  assert.equal(first.requests.length, 2);
  assert.equal(second.requests.length, 2);
});

test('ids are distinct, sortable UUIDv7 with their prefix', () => {
  const ids = Array.from({ length: 100 }, () => newId('trk'));
  assert.equal(new Set(ids).size, 100);
  for (const id of ids) assert.match(id, /^trk_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const milliseconds = Number.parseInt(ids[0].slice(4).replaceAll('-', '').slice(0, 12), 16);
  assert.ok(Math.abs(milliseconds - Date.now()) < 5000);
});

test('join links are taken apart, and anything else is refused by name', () => {
  assert.deepEqual(parseJoinLink('https://meet.example/#session=ses_1&token=a.b.c'), {
    base: 'https://meet.example',
    sessionId: 'ses_1',
    token: 'a.b.c',
  });
  assert.equal(parseJoinLink('https://meet.example/rooms/#session=s&token=t').base, 'https://meet.example/rooms');
  for (const wrong of ['', 'no link', 'https://meet.example/', 'https://meet.example/#token=t', 'javascript:1#session=s&token=t']) {
    assert.throws(() => parseJoinLink(wrong), { code: 'invalid_link' }, wrong);
  }
});

test('a token is renewed before it expires, with the destinations, until one has left', async (context) => {
  context.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  const joined = { participant: { id: 'par_1' }, endpoint_id: 'end_1', destination: 'old', token: 'first', token_expires_at: 11_000_000 };
  const renewed = { token: 'second', token_expires_at: 21_000_000, destination: 'new' };
  const answers = [{ status: 201, body: joined }, { status: 200, body: renewed }, { status: 204 }];
  const { participant, requests } = await setUp(context, ...answers);
  const until = async (condition) => {
    for (let turns = 0; !condition() && turns < 100_000; turns += 1) await new Promise(setImmediate);
    assert.ok(condition());
  };
  const endpoint = new EndpointApi(participant);
  endpoint.joined(await participant.join({ endpoint_id: endpoint.id }));
  context.mock.timers.tick(7_999_000);
  await new Promise(setImmediate);
  assert.equal(requests.length, 1, 'there is time');
  context.mock.timers.tick(2_000);
  await until(() => participant.token === 'second');
  assert.equal(endpoint.destination, 'new');
  const { method, url, headers, body } = requests[1];
  assert.deepEqual([method, url], ['POST', '/v1/sessions/ses_1/participants/par_1/token']);
  assert.deepEqual([headers.authorization, body], ['Bearer first', { destination: 'old' }]);
  await participant.leave();
  context.mock.timers.tick(100_000_000);
  await new Promise(setImmediate);
  assert.equal(requests.length, 3, 'nothing after the end');
});

test('who was removed is not renewed again, a server that is away is asked again', async (context) => {
  context.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  const { participant } = await setUp(context, problem(401, 'token_revoked'));
  participant.participantId = 'par_1';
  // As after a join whose timer has fired.
  const fired = setTimeout(() => {}, 0);
  participant.renewal = fired;
  await participant.renew();
  assert.equal(participant.renewal, fired, 'no new timer');
  assert.equal(participant.token, 'join-token');
  const away = await setUp(context, problem(500, 'internal'));
  away.participant.renewal = fired;
  await away.participant.renew();
  assert.notEqual(away.participant.renewal, fired);
  away.participant.stop();
});
