import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';

import { explain } from '../demo/devices.js';
import { findEntrance, isPersonal } from '../demo/link-source.js';
import { textOf } from '../demo/banner.js';
import { labelOf, textOf as chatOf } from '../demo/chat.js';
import { colourOf, initials } from '../demo/person.js';

const demo = new URL('../demo/', import.meta.url);
const read = (name) => readFileSync(new URL(name, demo), 'utf8');

test('initials are those of the first and the last name, in any script', () => {
  assert.equal(initials('Ada Lovelace'), 'AL');
  assert.equal(initials('  Edsger W. Dijkstra '), 'ED');
  assert.equal(initials('plato'), 'P');
  assert.equal(initials('élise'), 'É');
  assert.equal(initials('😀 face'), '😀F');
  assert.equal(initials(''), '?');
  assert.equal(initials('   '), '?');
});

test('a person has one colour', () => {
  assert.equal(colourOf('par_1'), colourOf('par_1'));
  assert.match(colourOf(''), /^#[0-9a-f]{6}$/);
});

test('why a device cannot be had is said in words that name it', () => {
  for (const name of ['NotAllowedError', 'NotFoundError', 'NotReadableError', 'AbortError']) {
    assert.match(explain('audio', new DOMException('', name)), /microphone/);
    assert.match(explain('video', new DOMException('', name)), /camera/);
  }
  assert.match(explain('video', null), /https/);
});

test('the banner says what happened and what is being done about it, and nothing while all is well', () => {
  assert.match(textOf('reconnecting', 'media_server_lost', ''), /media server stopped.*another/);
  assert.match(textOf('reconnecting', 'connection_lost', ''), /Reconnecting/);
  assert.match(textOf('disconnected', 'connection_lost', 'unavailable'), /no media server.*Nobody sees or hears you/);
  assert.match(textOf('disconnected', 'connection_lost', 'no such code'), /Could not reconnect\./);
  for (const state of ['connected', 'closed']) assert.equal(textOf(state, 'connection_lost', ''), '');
});

test('chat is text on its topic; whatever else others send is not shown', () => {
  assert.equal(chatOf({ topic: 'chat', data: ' hello ' }), 'hello');
  assert.equal(chatOf({ topic: 'chat', data: 'x'.repeat(10_000) }).length, 4000);
  for (const data of ['', '  ', 7, null, ['hello'], { text: 'hello' }, new ArrayBuffer(3)]) {
    assert.equal(chatOf({ topic: 'chat', data }), null);
  }
  assert.equal(chatOf({ topic: 'cursor', data: 'hello' }), null);
  assert.equal(chatOf({ data: 'hello' }), null);
  assert.equal(labelOf(0), 'Chat');
  assert.equal(labelOf(3), 'Chat, 3 unread');
});

const token = (claims) => `x.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.y`;

test('a join link in the address is the entrance, and nothing is asked of the server', async () => {
  const address = `https://meet.example/#session=ses_1&token=${token({ iss: 'key1' })}`;
  const entrance = await findEntrance(address, () => assert.fail('no request is needed'));
  assert.equal(entrance.link, address);
  assert.equal(entrance.share, address);
});

test('a personal link is not passed on', async () => {
  const address = `https://meet.example/#session=ses_1&token=${token({ sub: 'par_1' })}`;
  assert.equal((await findEntrance(address)).share, null);
  assert.equal(isPersonal('no token'), false);
});

test('without a link the demo gives one, by room, at the address of the page', async () => {
  const asked = [];
  const fetching = async (url, { body }) => {
    asked.push([url, JSON.parse(body)]);
    return new Response(JSON.stringify({ join_link: 'http://0.0.0.0:8080/#session=ses_1&token=t' }), { status: 201 });
  };
  const entrance = await findEntrance('http://localhost:8080/#room=blue%20room', fetching);
  assert.deepEqual(entrance, {
    link: 'http://localhost:8080/#session=ses_1&token=t',
    title: 'blue room',
    share: 'http://localhost:8080/#room=blue%20room',
  });
  await findEntrance('http://localhost:8080/', fetching);
  assert.deepEqual(asked, [
    ['/v1/demo/links', { room: 'blue room' }],
    ['/v1/demo/links', { room: 'lobby' }],
  ]);
});

test('no demo links: a join link is needed; no server: that is said', async () => {
  const answering = (status) => async () => new Response('{}', { status });
  assert.equal(await findEntrance('http://localhost/', answering(404)), null);
  await assert.rejects(findEntrance('http://localhost/', answering(503)), { code: 'unavailable' });
  const failing = async () => {
    throw new TypeError('failed to fetch');
  };
  await assert.rejects(findEntrance('http://localhost/', failing), { code: 'network' });
});

// The server's content security policy refuses all of these; better here than in someone's browser.
test('the page has no inline script or style and asks nobody else for anything', () => {
  const html = read('index.html');
  assert.doesNotMatch(html, /<style|\sstyle=|\son[a-z]+=|javascript:/i);
  assert.doesNotMatch(html, /<script(?![^>]*\ssrc=)/i);
  for (const [, address] of html.matchAll(/(?:src|href)="([^"#]+)/g)) assert.match(address, /^\/(demo|sdk)\//);
  for (const name of readdirSync(demo).filter((each) => each.endsWith('.css'))) {
    const css = read(name);
    assert.doesNotMatch(css, /@import/);
    for (const [, address] of css.matchAll(/url\(\s*['"]?([^'")]+)/g)) assert.match(address, /^\/demo\//);
  }
});

test('every icon that is used is drawn', () => {
  const drawn = new Set([...read('icons.svg').matchAll(/<symbol id="([^"]+)"/g)].map(([, id]) => id));
  const sources = readdirSync(demo).filter((name) => /\.(js|html)$/.test(name)).map(read).join('\n');
  const used = [...sources.matchAll(/icons\.svg#([a-z-]+)|icon\('([a-z-]+)'\)|icon: '([a-z-]+)'/g)];
  assert.ok(used.length > 5);
  for (const match of used) {
    const name = match[1] ?? match[2] ?? match[3];
    assert.ok(drawn.has(name), `icon ${name}`);
  }
});

test('colours of people leave their white initials readable (WCAG 4.5:1)', () => {
  const source = read('person.js').match(/COLOURS = \[([^\]]+)\]/)[1];
  for (const [, colour] of source.matchAll(/'(#[0-9a-f]{6})'/g)) {
    assert.ok(contrast(colour, '#ffffff') >= 4.5, `${colour}: ${contrast(colour, '#ffffff').toFixed(2)}`);
  }
});

test('texts and controls stand out from what is behind them', () => {
  const css = read('style.css');
  const value = (name) => css.match(new RegExp(`--${name}: (#[0-9a-f]{6})`))[1];
  for (const [front, back, least] of [
    ['text', 'ink', 7],
    ['soft', 'ink', 4.5],
    ['soft', 'surface', 4.5],
    ['soft', 'raised', 4.5],
    ['on-bright', 'amber', 4.5],
    ['on-bright', 'red', 4.5],
    ['red', 'surface', 3],
    ['green', 'raised', 3],
    ['amber', 'ink', 3],
  ]) {
    const found = contrast(value(front), value(back));
    assert.ok(found >= least, `${front} on ${back}: ${found.toFixed(2)}`);
  }
});

/** WCAG 2.2, relative luminance. */
function contrast(one, other) {
  const luminance = (colour) => {
    const [red, green, blue] = [1, 3, 5].map((at) => {
      const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}
