/** Someone in front of Firefox. Driven over WebDriver BiDi, which Firefox itself speaks; the other people's driver wants a Firefox of its own. */

import assert from 'node:assert/strict';
import puppeteer from 'puppeteer-core';
import { eventually } from './eventually.js';

const PATIENCE_MS = 30_000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);

const PREFERENCES = {
  // A camera with a moving picture, a microphone that hums, and no questions.
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  // Addresses in candidates as they are: the server does not resolve mDNS names.
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  // Nobody else is asked for anything.
  'media.gmp-manager.updateEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'browser.safebrowsing.downloads.remote.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'app.normandy.enabled': false,
  'app.update.enabled': false,
  'extensions.systemAddon.update.enabled': false,
};

export class Fox {
  /** Whatever the page complained about. @type {string[]} */
  complaints = [];
  id = '';
  #browser;
  #page;

  /** @param {string} name */
  static async open(name) {
    const browser = await puppeteer.launch({
      browser: 'firefox',
      executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
      headless: true,
      extraPrefsFirefox: PREFERENCES,
      timeout: PATIENCE_MS,
    });
    const [page] = await browser.pages();
    page.setDefaultTimeout(PATIENCE_MS);
    return new Fox(name, browser, page);
  }

  /**
   * @param {string} name @param {import('puppeteer-core').Browser} browser @param {import('puppeteer-core').Page} page
   * @private
   */
  constructor(name, browser, page) {
    this.name = name;
    this.#browser = browser;
    this.#page = page;
    page.on('console', (message) => {
      if (message.type() === 'error') this.complaints.push(`console: ${message.text()}`);
    });
    page.on('pageerror', (error) => this.complaints.push(`page: ${/** @type {Error} */ (error).message}`));
  }

  /** Opens the address and joins through the lobby. @param {string} address */
  async join(address) {
    const page = this.#page;
    // Another fragment alone would load nothing.
    await page.goto('about:blank');
    await page.goto(address);
    const field = await page.waitForSelector('#name', { visible: true });
    await field?.evaluate((input, name) => Object.assign(input, { value: name }).dispatchEvent(new Event('input', { bubbles: true })), this.name);
    await page.waitForSelector('#lobby-camera[aria-pressed=true]');
    await page.waitForSelector('#lobby-mic[aria-pressed=true]');
    await page.waitForFunction(() => document.querySelector('#join')?.textContent === 'Join');
    await page.click('#join');
    await page.waitForSelector('#room-screen', { visible: true });
    this.id = await page.evaluate(() => window.switchyard.room.localParticipant.id);
    return this;
  }

  /** Pictures of the other one come one after the other, in a room of two. @param {{ id: string, name: string }} other */
  async sees(other) {
    const seen = () =>
      this.#page.evaluate(async (id) => {
        const video = /** @type {HTMLVideoElement | null} */ (document.querySelector(`.tile[data-participant="${id}"][data-source="camera"] video`));
        const report = await window.switchyard.room.peerConnection?.getStats();
        const frames = [...(report?.values() ?? [])].map((entry) => (entry.type === 'inbound-rtp' && entry.framesDecoded) || 0);
        return { isShown: (video?.videoWidth ?? 0) > 0 && !video?.paused, frames: frames.reduce((sum, one) => sum + one, 0) };
      }, other.id);
    let first = 0;
    await eventually(`${this.name} sees the camera of ${other.name}`, async () => {
      const { isShown, frames } = await seen();
      // Another connection begins to count anew.
      if (first === 0 || frames < first) first = frames;
      if (isShown && first > 0 && frames > first + 10) return true;
      throw new Error(`${first} to ${frames} frames, ${isShown ? '' : 'not '}shown; ${await this.#connection()}`);
    });
  }

  /** For those who read why something failed. */
  #connection() {
    return this.#page.evaluate(async () => {
      const { peerConnection: peer } = window.switchyard.room;
      if (!peer) return 'no connection';
      const candidates = [...(await peer.getStats()).values()].filter(({ type }) => type.endsWith('-candidate'));
      const ways = candidates.map(({ type, address, protocol }) => `${type} ${address} ${protocol}`);
      return `${peer.connectionState}, ICE ${peer.iceConnectionState}, ${peer.signalingState}: ${ways.join(', ')}`;
    });
  }

  /** Sound comes of somebody: in a room of two, of the other one. */
  async hears() {
    const energy = () =>
      this.#page.evaluate(async () => {
        let sum = 0;
        const report = await window.switchyard.room.peerConnection?.getStats();
        for (const entry of report?.values() ?? []) if (entry.type === 'inbound-rtp') sum += entry.totalAudioEnergy ?? 0;
        return sum;
      });
    const before = await energy();
    await eventually(`${this.name} hears something`, async () => (await energy()) > before);
  }

  /** By which transport events come. */
  transport() {
    return this.#page.evaluate(() => window.switchyard.room.transport);
  }

  /** @param {string} text */
  async writes(text) {
    if (!(await this.#page.$eval('#chat-input', (input) => input.checkVisibility()))) await this.#page.click('#chat-toggle');
    await this.#page.waitForSelector('#chat-input', { visible: true });
    await this.#page.type('#chat-input', `${text}\n`);
  }

  /** @param {string} text */
  async reads(text) {
    await eventually(`${this.name} reads "${text}"`, async () =>
      (await this.#page.$$eval('.chat-text', (lines) => lines.map((line) => line.textContent))).includes(text),
    );
  }

  async leave() {
    await this.#page.click('#leave');
    await this.#page.waitForSelector('#left-screen', { visible: true });
  }

  isContent() {
    assert.deepEqual(this.complaints, [], `${this.name}'s page complained`);
  }

  async close() {
    await this.#browser.close();
  }
}
