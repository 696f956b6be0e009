/**
 * Networks that are in the way, made of namespaces and nftables: through each, somebody joins and has media both ways. Where
 * the browser decides what happens it is Chromium, with two people in one room who see and hear each other through the server;
 * behind translators of addresses, to which all clients are alike, the client of `switchyard load`.
 *
 * What each took to connect is printed as the table of docs/NETWORKS.md.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { Resolver } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, describe, test } from 'node:test';
import { promisify } from 'node:util';

import { Deployment, KEY } from './support/deployment.js';
import { eventually } from './support/eventually.js';
import { Home, KINDS } from './support/nat.js';
import { Network } from './support/network.js';
import { Person, allSeeAndHear, launch } from './support/person.js';
import { Process, binary } from './support/process.js';
import { Turn } from './support/turn.js';

const SECRET = 'shared-with-the-relay';
const SMALL = { width: 320, height: 180 };

/** @type {Network} */ let network;
/** @type {Deployment} */ let deployment;
/** @type {Turn} */ let turn;
/** @type {Home | undefined} */ let home;
/** @type {import('playwright-core').Browser[]} */ const browsers = [];
/** @type {string[]} */ const table = [];

before(async () => {
  network = new Network();
  turn = await new Turn(network.address, SECRET).ready();
  deployment = await Deployment.start('embedded', undefined, network.address, {
    SWITCHYARD_TURN_URLS: `turn:${turn.address}`,
    SWITCHYARD_TURN_SECRET: SECRET,
  });
});

afterEach(() => Promise.all(browsers.splice(0).map((browser) => browser.close())));

after(async () => {
  await deployment?.stop();
  await turn?.stop();
  network?.close();
});

/** In the page: notes what every connection took. */
function watchConnections() {
  const times = /** @type {number[]} */ (Object.assign(window, { connected: [] }).connected);
  window.RTCPeerConnection = class extends RTCPeerConnection {
    /** @param {RTCConfiguration} [configuration] */
    constructor(configuration) {
      super(configuration);
      const made = performance.now();
      let isNew = true;
      this.addEventListener('connectionstatechange', () => {
        if (this.connectionState === 'connected' && isNew) times.push(performance.now() - made);
        if (this.connectionState === 'connected') isNew = false;
      });
    }
  };
}

/**
 * Two people in one browser, who are in one room; or in one each, in networks of their own.
 * @param {import('./support/network.js').Guest} guest
 * @param {{ relayed?: boolean, at?: Deployment, other?: import('./support/network.js').Guest }} [options]
 */
async function two(guest, { relayed = false, at = deployment, other } = {}) {
  const launched = [];
  for (const { chromium } of other ? [guest, other] : [guest]) {
    launched.push(await launch({ chromium, origin: at.url }));
    browsers.push(/** @type {import('playwright-core').Browser} */ (launched.at(-1)));
  }
  const { address } = await at.room();
  const people = [];
  for (const [index, name] of ['Nora', 'Otto'].entries()) {
    const browser = launched[index % launched.length];
    const one = await Person.open(browser, name, { camera: SMALL, viewport: { width: 420, height: 320 } });
    await one.context.addInitScript(watchConnections);
    people.push(await one.join(relayed ? address.replace('/#', '/?relay#') : address));
  }
  await allSeeAndHear(people);
  return people;
}

/** The slowest first connection of these, in milliseconds. @param {Person[]} people */
async function slowest(people) {
  const times = await Promise.all(people.map((one) => one.page.evaluate(() => /** @type {any} */ (window).connected[0])));
  return Math.round(Math.max(...times));
}

/** @param {import('node:test').TestContext} t @param {string} network @param {string} path @param {string | number} connected */
function note(t, network, path, connected) {
  table.push(`| ${network} | ${path} | ${connected} |`);
  t.diagnostic(/** @type {string} */ (table.at(-1)));
}

/** How the server sees where media goes, and the browser. @param {Person} one */
async function path(one) {
  return one.page.evaluate(async () => {
    const { room } = /** @type {any} */ (window).switchyard;
    const report = /** @type {Map<string, any>} */ (await room.peerConnection.getStats());
    const transport = [...report.values()].find(({ type }) => type === 'transport');
    const pair = report.get(transport?.selectedCandidatePairId);
    const { protocol, candidateType, address } = report.get(pair?.localCandidateId) ?? {};
    // The server may be out of reach for a while where the network has just changed.
    const seen = await room.serverStats().then((/** @type {any} */ stats) => stats.transport.path).catch(() => null);
    return { protocol, candidateType, address, seen: seen?.protocol, family: seen?.address_family };
  });
}

/** Until the browser's path is so. @param {Person} one @param {Record<string, string>} wanted */
async function pathIs(one, wanted) {
  return eventually(`the path of ${one.name} is ${JSON.stringify(wanted)}`, async () => {
    const found = /** @type {Record<string, string>} */ (await path(one));
    if (Object.entries(wanted).every(([key, value]) => found[key] === value)) return found;
    throw new Error(JSON.stringify(found));
  });
}

describe('networks in the way', { timeout: 400_000 }, () => {
  test('nothing in the way, and then another address', async (t) => {
    const guest = network.guest('open');
    const people = await two(guest);
    for (const one of people) await pathIs(one, { protocol: 'udp', seen: 'udp' });
    note(t, 'open', 'UDP', await slowest(people));

    const joins = await Promise.all(people.map((one) => one.page.evaluate(() => /** @type {any} */ (window).connected.length)));
    guest.move();
    const moved = performance.now();
    for (const one of people) await pathIs(one, { address: guest.movedTo });
    const took = performance.now() - moved;
    await allSeeAndHear(people);
    const again = await Promise.all(people.map((one) => one.page.evaluate(() => /** @type {any} */ (window).connected.length)));
    assert.deepEqual(again, joins, 'the connections are those that were there: ICE was restarted');
    note(t, 'address changes during the call', 'UDP, ICE restart', `${Math.round(took)} until both paths are new`);
  });

  test('two interfaces, of which one fails', async (t) => {
    const guest = network.guest('double');
    const { first, second } = guest.addInterface();
    const people = await two(guest);
    note(t, 'two interfaces', 'UDP', await slowest(people));
    for (const one of people) {
      const { address } = await path(one);
      assert.ok([first, second].includes(address ?? ''), `${address} is one of ${first} and ${second}`);
    }
    guest.cutFirst();
    const cut = performance.now();
    for (const one of people) await pathIs(one, { address: second });
    const took = performance.now() - cut;
    await allSeeAndHear(people);
    note(t, 'one of two interfaces fails during the call', 'UDP', `${Math.round(took)} until both use the other`);
  });

  test('no UDP at all', async (t) => {
    const guest = network.guest('blocked');
    guest.blockUdp();
    const people = await two(guest);
    for (const one of people) await pathIs(one, { protocol: 'tcp', seen: 'tcp' });
    note(t, 'UDP blocked', 'TCP', await slowest(people));
    for (const one of people) await one.isContent();
  });

  test('IPv6 only', async (t) => {
    network.speakIpv6();
    const six = await Deployment.start('embedded', undefined, network.address6);
    try {
      const guest = network.guest('six');
      guest.becomeIpv6();
      const people = await two(guest, { at: six });
      for (const one of people) await pathIs(one, { protocol: 'udp', seen: 'udp', family: 'ipv6' });
      note(t, 'IPv6 only', 'UDP', await slowest(people));
      for (const one of people) await one.isContent();
    } finally {
      await six.stop();
    }
  });

  test('relays only, of coturn: with the credentials of the join, and with no others', async (t) => {
    const guest = network.guest('relayed');
    const people = await two(guest, { relayed: true });
    for (const one of people) await pathIs(one, { candidateType: 'relay' });
    note(t, 'relays only', 'TURN (coturn), UDP', await slowest(people));
    for (const one of people) await one.isContent();

    await takesGoodCredentialsOnly(people[0], `turn:${turn.address}`);
  });

  test('relays only, of the server itself: by UDP, and by TCP where no UDP is let through', async (t) => {
    const own = await Deployment.start('embedded', undefined, network.address, {
      SWITCHYARD_TURN_LISTEN: `${network.address}:3479`,
      SWITCHYARD_TURN_SECRET: SECRET,
    });
    try {
      const blocked = network.guest('owntcp');
      blocked.blockUdp();
      const people = await two(network.guest('ownudp'), { relayed: true, at: own, other: blocked });
      for (const one of people) await pathIs(one, { candidateType: 'relay', seen: 'udp' });
      for (const [index, where] of ['relays only', 'relays only, UDP blocked'].entries()) {
        note(t, where, `TURN (the server itself), ${['UDP', 'TCP'][index]}`, await slowest([people[index]]));
      }
      await takesGoodCredentialsOnly(people[0], `turn:${network.address}:3479`);
      for (const one of people) await one.isContent();
    } finally {
      await own.stop();
    }
  });

  test('translators of addresses: each is what it is called, and clients behind it have media', async (t) => {
    home ??= new Home(network);
    const stranger = network.another();
    for (const kind of Object.keys(KINDS)) {
      home.become(kind);
      const { mapping, lets } = KINDS[kind];
      assert.deepEqual(await home.probe(network.address, stranger), { mapping, lets }, `the router is ${kind}`);
      const load = ['netns', 'exec', home.name, binary(), 'load', '--url', deployment.url, '--api-key', KEY, '--client-address', home.address,
        '--parties', '2', '--settle', '0s', '--duration', '1s', '--video-bitrate', '200k', '--json', '-', '--quiet'];
      const { stdout } = await promisify(execFile)('ip', load);
      const { joins, packets, failures } = JSON.parse(stdout);
      assert.deepEqual([joins.clients, joins.failed, failures], [2, 0, {}], kind);
      assert.ok(packets.forwarded > 50 && packets.loss_percent < 5, JSON.stringify(packets));
      note(t, kind, 'UDP', Math.round(joins.connected_ms.max));
    }
  });

  test('a server behind a translator announces what it is told, else what STUN, else what DNS says', async () => {
    home ??= new Home(network);
    home.become('full cone');
    const outside = home.router.address;
    const names = new Process('dnsmasq', '/usr/sbin/dnsmasq', ['--keep-in-foreground', '--conf-file=/dev/null', '--no-resolv', '--no-hosts',
      '--user=root', '--pid-file=', '--bind-interfaces', `--listen-address=${network.address}`, '--port=5353', `--address=/myip.test/${outside}`]);
    try {
      const resolver = new Resolver();
      resolver.setServers([`${network.address}:5353`]);
      await eventually('dnsmasq answers', async () => (await resolver.resolve4('myip.test')).includes(outside));
      const [stun, silent, dns] = [`stun:${turn.address}`, `stun:${network.address}:9`, `dns:myip.test@${network.address}:5353`];
      for (const [setting, address, found] of [
        [stun, outside, stun],
        [`${dns},${silent}`, outside, dns],
        [`203.0.113.7,${stun}`, '203.0.113.7', null],
      ]) {
        const server = behind(home, /** @type {string} */ (setting));
        try {
          const line = await server.line('switchyard: worker ');
          assert.match(line, new RegExp(`media on udp ${address}:\\d+$`));
          const log = readFileSync(server.log, 'utf8');
          assert.equal(/public address found source=(\S+)/.exec(plain(log))?.[1] ?? null, found);
        } finally {
          await server.stop();
        }
      }
      const began = performance.now();
      const lost = behind(home, silent);
      assert.equal(await lost.exited, '69');
      assert.ok(performance.now() - began < 15_000, 'within bounded time');
      assert.match(readFileSync(lost.log, 'utf8'), new RegExp(`the public address is not known: ${silent}`));
    } finally {
      await names.stop();
    }
  });

  test('the table', (t) => {
    t.diagnostic(['', '| network | path | connected, ms |', '|---|---|---|', ...table].join('\n'));
    assert.equal(table.length, 13, 'every network was measured');
  });
});

/** A server of its own in somebody's home. @param {Home} home @param {string} publicAddress */
function behind(home, publicAddress) {
  const settings = ['--api-keys', KEY, '--listen', '127.0.0.1:0', '--media-address', home.address, '--media-port', '0', '--public-address', publicAddress];
  return new Process('behind', 'ip', ['netns', 'exec', home.name, binary(), ...settings], { NO_COLOR: '1' });
}

/** Without colours. @param {string} log */
function plain(log) {
  return log.replace(/\x1b\[[0-9;]*m/g, '');
}

/** Whether a TURN server takes credentials of its secret for as long as they are good, and no others. @param {Person} one @param {string} url */
async function takesGoodCredentialsOnly(one, url) {
  const credential = (/** @type {string} */ username, secret = SECRET) =>
    ({ urls: [url], username, credential: createHmac('sha1', secret).update(username).digest('base64') });
  const now = Math.floor(Date.now() / 1000);
  const all = [credential(`${now + 60}:par_x`), credential(`${now - 60}:par_x`), credential(`${now + 60}:par_x`, 'not-the-secret-of-it')];
  const [good, ...refused] = await Promise.all(all.map((server) => one.page.evaluate(gather, server)));
  assert.deepEqual([good.relays > 0, good.errors], [true, []]);
  for (const tried of refused) {
    assert.equal(tried.relays, 0);
    assert.ok(tried.errors.includes(401), `refused as unauthorised: ${tried.errors}`);
  }
}

/** In the page: what gathering with one server brings. @param {RTCIceServer} server */
async function gather(server) {
  const peer = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: 'relay' });
  let relays = 0;
  /** @type {number[]} */ const errors = [];
  peer.addEventListener('icecandidateerror', ({ errorCode }) => errors.push(errorCode));
  const done = new Promise((resolve) => {
    peer.addEventListener('icecandidate', ({ candidate }) => {
      if (candidate?.candidate) relays += 1;
      else if (!candidate) resolve(undefined);
    });
  });
  peer.createDataChannel('any');
  await peer.setLocalDescription();
  await done;
  peer.close();
  return { relays, errors };
}
