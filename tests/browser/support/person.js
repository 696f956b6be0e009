/** Someone in front of a browser: opens the demo, joins, sees and hears the others. */

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { eventually } from './eventually.js';
import { drawCamera, SCENIC } from './scenery.js';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // A camera with a moving picture, a microphone that beeps, and no questions; also for sharing a screen.
  '--use-fake-ui-for-media-stream',
  '--auto-select-desktop-capture-source=Entire screen',
  '--autoplay-policy=no-user-gesture-required',
  // Addresses in candidates as they are: the server does not resolve mDNS names.
  '--disable-features=WebRtcHideLocalIpsWithMdns',
  // Several pages share the machine; none of them may be treated as the one in the back.
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
];

/** Of the cameras: what two cores can encode and decode several times at once. */
const CAMERA = { width: 640, height: 360 };

/** In the page: a camera of that size. @param {{ width: number, height: number }} size */
function smallCamera({ width, height }) {
  const devices = navigator.mediaDevices;
  if (!devices) return;
  const open = devices.getUserMedia.bind(devices);
  devices.getUserMedia = (constraints = {}) => {
    const { video } = constraints;
    if (!video) return open(constraints);
    const small = { ...(video === true ? {} : video), width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 10 } };
    return open({ ...constraints, video: small });
  };
}

/** In the page: what its Content-Security-Policy refuses is an error. */
function reportViolations() {
  addEventListener('securitypolicyviolation', (event) =>
    console.error(`policy: ${event.effectiveDirective} refuses ${event.blockedURI}`),
  );
}

/** Of everything that is waited for in a page. */
const PATIENCE_MS = 30_000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);

/**
 * @param {{ chromium?: string, origin?: string, fps?: number }} [options] which program; and an origin that may use cameras although it is
 *   neither loopback nor HTTPS; and how many pictures its cameras take each second
 */
export function launch({ chromium: program = process.env.CHROMIUM ?? '/usr/bin/chromium', origin, fps = 10 } = {}) {
  const args = [...FLAGS, `--use-fake-device-for-media-stream=fps=${fps}`];
  if (origin) args.push(`--unsafely-treat-insecure-origin-as-secure=${origin}`);
  return chromium.launch({ executablePath: program, headless: true, args });
}

/**
 * What a page receives of someone, summed over that person's tracks.
 * @typedef {{ frames: number, energy: number, width: number, requests: number, codecs: string[] }} Reception
 */

export class Person {
  /** Whatever the page complained about. @type {string[]} */
  complaints = [];
  /** The origins that anything was asked of; "null" is the page's own data. @type {Set<string>} */
  asked = new Set();
  /** Offers of ours that met one of the server. */
  collisions = 0;
  id = '';

  /**
   * @param {import('playwright-core').Browser} browser
   * @param {string} name
   * @param {import('playwright-core').BrowserContextOptions & { camera?: { width: number, height: number } }} [options]
   */
  static async open(browser, name, { camera = CAMERA, ...options } = {}) {
    const context = await browser.newContext({ viewport: { width: 960, height: 600 }, ...options });
    if (SCENIC) await context.addInitScript(drawCamera, name);
    else await context.addInitScript(smallCamera, camera);
    await context.addInitScript(reportViolations);
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    return new Person(name, context, page);
  }

  /**
   * @param {string} name
   * @param {import('playwright-core').BrowserContext} context
   * @param {import('playwright-core').Page} page
   * @private
   */
  constructor(name, context, page) {
    this.name = name;
    this.context = context;
    this.page = page;
    page.on('console', (message) => {
      if (message.type() !== 'error') return;
      const { url } = message.location();
      // The browser itself logs every 409; this one is how an offer learns that it has to wait its turn.
      if (url.endsWith('/offer') && message.text().includes('status of 409')) this.collisions += 1;
      else this.complaints.push(`console: ${message.text()} ${url}`);
    });
    page.on('request', (request) => this.asked.add(new URL(request.url()).origin));
    page.on('websocket', (socket) => this.asked.add(new URL(socket.url().replace(/^ws/, 'http')).origin));
    page.on('pageerror', (error) => this.complaints.push(`page: ${error.message}`));
    page.on('crash', () => this.complaints.push('page: crashed'));
  }

  /** Opens the address and joins through the lobby. @param {string} address */
  async join(address) {
    await this.page.goto(address);
    await this.enter();
    return this;
  }

  /** From the lobby into the room. */
  async enter() {
    const { page } = this;
    await page.locator('#name').fill(this.name).catch(async (error) => {
      throw new Error(`${this.name} finds no lobby: ${await page.innerText('body')}; ${this.complaints}; ${error.message}`);
    });
    // Whoever is faster than the camera joins as a viewer.
    await page.locator('#lobby-camera[aria-pressed=true]').waitFor();
    await page.locator('#lobby-mic[aria-pressed=true]').waitFor();
    await eventually('devices are open', async () => (await page.locator('#join').textContent()) === 'Join');
    await page.locator('#join').click();
    await page.locator('#room-screen').waitFor({ state: 'visible' }).catch(async (error) => {
      throw new Error(`${this.name} does not get in: ${await page.locator('#join-error').textContent()}; ${this.complaints}; ${error.message}`);
    });
    this.id = await page.evaluate(() => window.switchyard.room.localParticipant.id);
    // Lost with a reload, which nothing in a room may need.
    await page.evaluate(() => Object.assign(window, { sinceJoin: true }));
  }

  async leave() {
    await this.page.locator('#leave').click();
    await this.page.locator('#left-screen').waitFor({ state: 'visible' });
  }

  async close() {
    await this.context.close();
  }

  /** @param {Person | { id: string }} other @param {string} [source] */
  tile(other, source = 'camera') {
    return this.page.locator(`.tile[data-participant="${other.id}"][data-source="${source}"]`);
  }

  /** Those of these names, when all of them are there. @param {string[]} names */
  async others(names) {
    const there = await this.page.evaluate(() => [...window.switchyard.room.participants.values()].map(({ id, name }) => ({ id, name })));
    const wanted = there.filter(({ name }) => names.includes(name));
    if (wanted.length === names.length) return wanted;
    throw new Error(`there are ${there.map(({ name }) => name).join(', ')}`);
  }

  /**
   * What getStats says about the media of each of the others, by participant id and source.
   * @returns {Promise<Record<string, Record<string, Reception>>>}
   */
  async receptions() {
    return this.page.evaluate(async () => {
      const { room } = window.switchyard;
      /** @type {Record<string, any>} */
      const seen = {};
      /** @type {Map<string, any>} */
      const report = await room.peerConnection.getStats();
      for (const participant of room.participants.values()) {
        seen[participant.id] = {};
        for (const { source, mid } of participant.tracks.values()) {
          const reception = { frames: 0, energy: 0, width: 0, requests: 0, codecs: [] };
          for (const entry of report.values()) {
            if (entry.type !== 'inbound-rtp' || entry.mid !== mid) continue;
            reception.frames += entry.framesDecoded ?? 0;
            reception.energy += entry.totalAudioEnergy ?? 0;
            reception.requests += entry.pliCount ?? 0;
            reception.width = Math.max(reception.width, entry.frameWidth ?? 0);
            const codec = report.get(entry.codecId)?.mimeType;
            if (codec) reception.codecs.push(codec);
          }
          seen[participant.id][source] = reception;
        }
      }
      return seen;
    });
  }

  /** What arrives, summed over everybody: frames, time that pictures stood still (s), samples played and made up. */
  async figures() {
    return this.page.evaluate(async () => {
      const sums = { pictures: 0, frames: 0, frozen: 0, samples: 0, concealed: 0 };
      /** @type {Map<string, any>} */
      const report = await window.switchyard.room.peerConnection.getStats();
      for (const entry of report.values()) {
        if (entry.type !== 'inbound-rtp') continue;
        sums.pictures += entry.kind === 'video' && entry.framesDecoded > 0 ? 1 : 0;
        sums.frames += entry.framesDecoded ?? 0;
        sums.frozen += entry.totalFreezesDuration ?? 0;
        sums.samples += entry.totalSamplesReceived ?? 0;
        // Silence that is made up where nothing is sent is none that was lost.
        sums.concealed += (entry.concealedSamples ?? 0) - (entry.silentConcealedSamples ?? 0);
      }
      return sums;
    });
  }

  /** Whether the tile says, or does not say, that the other's picture is held back. @param {Person | { id: string }} other @param {boolean} suspended */
  async isTold(other, suspended) {
    const says = await this.tile(other).locator('.tile-suspended').isVisible();
    if (says === suspended) return true;
    throw new Error(suspended ? 'it does not say so' : 'it still says so');
  }

  /**
   * Waits until the server sends all there is of the other's camera, or less than that, by its own account.
   * @param {Person} other @param {'all' | 'less'} amount
   * @returns {Promise<{ encoding: number | null, temporal: number | null }>} up to what
   */
  async gets(other, amount) {
    return eventually(`${this.name} gets ${amount} of ${other.name}`, async () => {
      const camera = await this.page.evaluate(async (id) => {
        const { subscribed } = await window.switchyard.room.serverStats();
        return subscribed.find(({ participant_id, source }) => participant_id === id && source === 'camera');
      }, other.id);
      const { state, target } = camera ?? {};
      const isLimited = target?.encoding != null || target?.temporal != null;
      if (state === 'flowing' && target && isLimited === (amount === 'less')) return target;
      throw new Error(JSON.stringify(camera));
    });
  }

  /**
   * What is sent of a camera: frames by encoding (RID).
   * @returns {Promise<Record<string, number>>}
   */
  async encodings() {
    return this.page.evaluate(async () => {
      /** @type {Map<string, any>} */
      const report = await window.switchyard.room.peerConnection.getStats();
      const sent = [...report.values()].filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
      return Object.fromEntries(sent.map(({ rid, framesEncoded }) => [rid, framesEncoded ?? 0]));
    });
  }

  /** For failures: what its encoder says of each encoding of its camera, and the server of what it is sent. */
  async hindrances() {
    return this.page.evaluate(async () => {
      /** @type {Map<string, any>} */
      const report = await window.switchyard.room.peerConnection.getStats();
      const sent = [...report.values()].filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
      const encodings = sent.map(({ rid, active, frameWidth, framesEncoded, targetBitrate, qualityLimitationReason }) =>
        ({ rid, active, frameWidth, framesEncoded, targetBitrate, qualityLimitationReason }));
      const [pair] = [...report.values()].filter(({ type, nominated }) => type === 'candidate-pair' && nominated);
      const stats = await window.switchyard.room.serverStats().catch(String);
      return JSON.stringify({ encodings, outgoing: pair?.availableOutgoingBitrate, stats });
    });
  }

  /** Sends a steady tone in place of the microphone, whose beeps are too short for anybody's turn. */
  async speak() {
    await this.page.evaluate(async () => {
      const context = new AudioContext();
      const tone = new OscillatorNode(context, { frequency: 300 });
      const out = context.createMediaStreamDestination();
      tone.connect(new GainNode(context, { gain: 0.4 })).connect(out);
      tone.start();
      Object.assign(window, { tone: context }); // kept from being collected
      await window.switchyard.room.localParticipant.replaceTrack('microphone', out.stream.getAudioTracks()[0]);
    });
  }

  /**
   * Limits what is received of the other's camera, which else is as large as its tile. @param {Person} other
   * @param {{ paused?: boolean, maxEncoding?: number, maxTemporal?: number, shown?: { width: number, height: number } }} quality
   */
  async limit(other, quality) {
    await this.page.evaluate(
      async ([id, quality]) => {
        const { room } = window.switchyard;
        const tracks = [...room.participants.get(id).tracks.values()];
        await room.setQuality(tracks.find(({ source }) => source === 'camera'), quality);
      },
      /** @type {[string, any]} */ ([other.id, quality]),
    );
  }

  /**
   * Waits until frames of the other's source are decoded on and on.
   * @param {Person | { id: string }} other @param {string} [source]
   * @returns {Promise<Reception>} the last look
   */
  async sees(other, source = 'camera') {
    const name = 'name' in other ? other.name : other.id;
    let first = -1;
    return eventually(`${this.name} sees the ${source} of ${name}`, async () => {
      const reception = (await this.receptions())[other.id]?.[source];
      if (!reception) throw new Error(`not subscribed: ${JSON.stringify(await this.receptions())}; ${this.complaints}`);
      if (first < 0 || reception.frames < first) first = reception.frames;
      if (reception.frames >= first + 10) return reception;
      throw new Error(`${first} to ${reception.frames} frames decoded; ${await this.state()}; ${this.complaints}`);
    });
  }

  /** Waits until the cameras of all of them are decoded on and on; where many are, a look is not cheap. @param {{ id: string, name: string }[]} others */
  async seesAll(others) {
    /** @type {Map<string, number>} */ const first = new Map();
    const look = async () => {
      const seen = await this.receptions();
      const missing = others.filter(({ id }) => {
        const frames = seen[id]?.camera?.frames;
        if (frames === undefined) return true;
        if (frames < (first.get(id) ?? Infinity)) first.set(id, frames);
        return frames < (first.get(id) ?? 0) + 10;
      });
      if (missing.length === 0) return true;
      const figures = missing.map(({ id, name }) => `${name}: ${first.get(id)} to ${seen[id]?.camera?.frames} frames`);
      throw new Error(`${figures.join(', ')}; ${await this.state()}; ${this.complaints}`);
    };
    await eventually(`${this.name} sees the cameras of everybody`, look, 30, 500);
  }

  /** Waits until sound of the other keeps coming. @param {Person | { id: string }} other @param {string} [source] */
  async hears(other, source = 'microphone') {
    let first = -1;
    await eventually(`${this.name} hears ${'name' in other ? other.name : other.id}`, async () => {
      const reception = (await this.receptions())[other.id]?.[source];
      if (!reception) throw new Error(`not subscribed: ${JSON.stringify(await this.receptions())}`);
      if (first < 0 || reception.energy < first) first = reception.energy;
      if (reception.energy > first + 1e-6) return true;
      throw new Error(`audio energy stays at ${reception.energy}; ${await this.state()}`);
    });
  }

  /** The port of the media server that this page is connected to. */
  async mediaPort() {
    return this.page.evaluate(async () => {
      const report = /** @type {Map<string, any>} */ (await window.switchyard.room.peerConnection.getStats());
      const transport = [...report.values()].find(({ type }) => type === 'transport');
      const pair = report.get(transport?.selectedCandidatePairId);
      return /** @type {number} */ (report.get(pair?.remoteCandidateId)?.port);
    });
  }

  /** The connection's state, for messages. */
  async state() {
    return this.page.evaluate(() => {
      const room = window.switchyard.room;
      const peer = room?.peerConnection;
      return `${room?.connectionState}, ICE ${peer?.iceConnectionState}, DTLS ${peer?.connectionState}, signalling ${peer?.signalingState}, revision ${room?.revision}, by ${room?.transport}`;
    });
  }

  /** Nothing was complained about, the page was not reloaded, no banner is up. */
  async isContent() {
    assert.deepEqual(this.complaints, [], `${this.name}'s page complained`);
    const { origin } = new URL(this.page.url());
    const elsewhere = [...this.asked].filter((asked) => asked !== origin && asked !== 'null');
    assert.deepEqual(elsewhere, [], `${this.name}'s page asked others than ${origin}`);
    assert.equal(await this.page.evaluate(() => window.sinceJoin), true, `${this.name}'s page was reloaded`);
    await eventually(`${this.name} has no banner`, async () => this.page.locator('[data-testid=banner]').isHidden());
  }
}

/** Everyone sees and hears everyone else. @param {Person[]} people */
export async function allSeeAndHear(people) {
  for (const one of people) {
    for (const other of people) {
      if (one === other) continue;
      await one.sees(other);
      await one.hears(other);
    }
  }
}
