import assert from 'node:assert/strict';
import test from 'node:test';

import { pasted, read } from '../admin/access.js';
import { AdminApi } from '../admin/admin-api.js';
import { ceiling, path } from '../admin/chart.js';
import { bitrate, bytes, count, duration, shortId } from '../admin/format.js';
import { History, LINES, WINDOW_MS, total } from '../admin/history.js';
import { because, rates } from '../admin/session.js';
import { sessionState, title } from '../admin/sessions.js';
import { stateOf } from '../admin/workers.js';

const worker = (id, load = {}, rest = {}) => ({
  id, alive: true, state: 'ready', ...rest,
  load: { endpoints: 0, pipelines: 0, packets_per_second: 0, bits_per_second: 0, memory_bytes: 0, cpu: 0, full: false, ...load },
});

test('figures have at most three digits and a unit', () => {
  assert.deepEqual([0, 7, 999, 1000, 12_345, 999_999, 3_400_000].map(count), ['0', '7', '999', '1.00 k', '12.3 k', '1.00 M', '3.40 M']);
  assert.deepEqual([0, 999, 3_400_000, 12e9].map(bitrate), ['0 bit/s', '999 bit/s', '3.40 Mbit/s', '12.0 Gbit/s']);
  assert.deepEqual([512, 64 << 20, 3 * 2 ** 30].map(bytes), ['512 B', '64.0 MiB', '3.00 GiB']);
  assert.deepEqual([-5, 89_999, 90_000, 5_400_000, 172_800_000].map(duration), ['0 s', '89 s', '1 min', '1 h', '2 d']);
  assert.equal(shortId('wrk_01927d2a-1111-7222-8333-0123456789ab'), 'wrk_…6789ab');
});

test('graphs begin with a minute and grow to ten', () => {
  const history = new History();
  const minute = WINDOW_MS / 10;
  assert.equal(history.span(0), minute, 'before the first look');
  history.add(0, [worker('a')]);
  assert.equal(history.span(minute), minute);
  assert.equal(history.span(minute + 1), 2 * minute);
  assert.equal(history.span(4 * minute), 5 * minute);
  assert.equal(history.span(6 * minute), WINDOW_MS);
  history.add(WINDOW_MS + minute / 2, [worker('b')]);
  assert.equal(history.span(WINDOW_MS + minute), minute, 'what is forgotten takes no room');
});

test('history keeps ten minutes of the living, and draws the largest', () => {
  const history = new History();
  history.add(0, [worker('a', { endpoints: 1 }), worker('dead', { endpoints: 9 }, { alive: false })]);
  history.add(WINDOW_MS, [worker('a', { endpoints: 2 }), worker('b', { endpoints: 5 })]);
  assert.deepEqual(history.lines('participants').map(({ id, last }) => [id, last]), [['b', 5], ['a', 2]]);
  assert.equal(history.line('a', 'participants').length, 2);
  history.add(WINDOW_MS + 1, [worker('b')]);
  assert.equal(history.line('a', 'participants').length, 1, 'what is too old is forgotten');
  history.add(3 * WINDOW_MS, Array.from({ length: LINES + 3 }, (_, index) => worker(`w${index}`, { endpoints: index })));
  assert.equal(history.lines('participants').length, LINES);
  assert.deepEqual(history.line('a', 'participants'), []);
});

test('a worker of before the bit rate counts as none of it', () => {
  const old = worker('a');
  delete old.load.bits_per_second;
  assert.equal(total([old, worker('b', { bits_per_second: 5 })]).bits, 5);
  assert.equal(total([worker('a', { endpoints: 3 }), worker('b', { endpoints: 4 }, { alive: false })]).participants, 3);
});

test('a line goes from left to right within its graph', () => {
  assert.deepEqual([0, -1, NaN, 1, 1.01, 2, 4.2, 60, 501].map(ceiling), [1, 1, 1, 1, 2, 2, 5, 100, 1000]);
  const scale = { now: WINDOW_MS, span: WINDOW_MS, top: 10, width: 100, height: 56 };
  assert.equal(path([], scale), '');
  assert.equal(path([{ at: 0, value: 0 }, { at: WINDOW_MS / 2, value: 10 }, { at: WINDOW_MS, value: 99 }], scale), 'M0.0 56.0L50.0 6.0L100.0 6.0');
  assert.match(path([{ at: WINDOW_MS, value: 5 }], scale), /^M99\.7 31\.0L100\.0 31\.0$/);
  assert.equal(path([{ at: -1, value: 5 }], scale), '');
});

test("a token is read where it is an operator's, and anything else is none", () => {
  const token = (claims) => `x.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.y`;
  const good = token({ iss: 'ops-ü', exp: 1_800_000_000, video: { operator: true } });
  assert.deepEqual(read(good), { expiresAt: 1_800_000_000_000, keyId: 'ops-ü' });
  for (const bad of ['', 'x', 'x.%%%.y', token({ exp: 1, video: { roomJoin: true } }), token({ video: { operator: true } }), token(null)]) {
    assert.equal(read(bad), null, bad);
  }
  assert.equal(pasted(` https://meet.example/admin/#token=${good}\n`), good);
  assert.equal(pasted(` ${good} `), good);
});

test('workers and sessions are called what they are', () => {
  assert.equal(stateOf(worker('a')), 'ready');
  assert.equal(stateOf(worker('a', { full: true })), 'full');
  assert.equal(stateOf(worker('a', { full: true }, { state: 'draining' })), 'draining');
  assert.equal(stateOf(worker('a', {}, { state: 'draining', alive: false })), 'lost');
  assert.deepEqual([{ state: 'open' }, { state: 'open', is_moving: true }, { state: 'closed' }].map(sessionState), ['open', 'moving', 'ended']);
  assert.equal(title({ name: ' ', id: 'ses_01927d2a-1111-7222-8333-0123456789ab' }), 'ses_…6789ab');
  assert.equal(because({ cause: {} }), '');
  assert.equal(because({ cause: { reason: 'grace_expired', trace_id: 'abc' } }), 'grace expired · trace abc');
});

test('what a connection carries is the sum of its tracks, whatever is not known yet', () => {
  const stats = {
    published: [{ encodings: [{ bitrate_bps: 100 }, { bitrate_bps: null }] }, { encodings: [] }],
    subscribed: [{ bitrate_bps: 7 }, { bitrate_bps: null }],
  };
  assert.deepEqual(rates(stats), { up: 100, down: 7 });
});

test('requests carry the token and ids that cannot leave their place; a refused token is told', async () => {
  const asked = [];
  let answer = { status: 200, body: { workers: [], sessions: [], next: null } };
  const api = {
    async request(method, path, options) {
      asked.push([method, path, options.token]);
      if (answer.code) throw Object.assign(new Error('no'), { code: answer.code });
      return answer;
    },
  };
  const refused = [];
  const admin = new AdminApi('the-token', (code) => refused.push(code), api);
  await admin.sessions({ search: 'a&b=c', workerId: 'wrk_1', any: true, after: 'ses_1' });
  await admin.remove('../..', 'x/y?z');
  assert.deepEqual(asked, [
    ['GET', '/v1/admin/sessions?limit=25&state=any&search=a%26b%3Dc&worker_id=wrk_1&after=ses_1', 'the-token'],
    ['DELETE', '/v1/sessions/..%2F../participants/x%2Fy%3Fz', 'the-token'],
  ]);
  answer = { code: 'unavailable' };
  await assert.rejects(admin.workers());
  assert.deepEqual(refused, []);
  answer = { code: 'unauthorized' };
  await assert.rejects(admin.workers());
  assert.deepEqual(refused, ['unauthorized']);
});
