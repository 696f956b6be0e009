/**
 * A picture over a link that becomes narrow and wide again, round after round, in real Chromium: how soon less of it comes, what
 * the estimate falls to, and how much of the time the picture is suspended. `bench/narrow-link [ROUNDS [BUSY_LOOPS]]`.
 */

import { spawn } from 'node:child_process';

import { Deployment } from './support/deployment.js';
import { Network } from './support/network.js';
import { Person, launch } from './support/person.js';

const KBPS = 250;
/** How long a round is looked at after there is less. */
const SETTLED_MS = 5000;
const [rounds = 10, loops = 0] = process.argv.slice(2).map(Number);

/** What is kept from others, from the start of a round. @typedef {{ at: number, state: string, isLess: boolean, estimate: number, width: number }} Look */

/** @param {Person} one @param {Person} other @returns {Promise<Omit<Look, 'at'>>} */
async function look(one, other) {
  return one.page.evaluate(async (id) => {
    const { room } = window.switchyard;
    const report = /** @type {Map<string, any>} */ (await room.peerConnection.getStats());
    const { subscribed, transport } = await room.serverStats();
    const camera = subscribed.find(({ participant_id, source }) => participant_id === id && source === 'camera');
    const arrives = [...report.values()].find(({ type, mid }) => type === 'inbound-rtp' && mid === camera?.mid);
    return {
      state: String(camera?.state),
      isLess: camera?.target?.encoding != null || camera?.target?.temporal != null,
      estimate: Math.round((transport.available_outgoing_bitrate_bps ?? 0) / 1000),
      width: arrives?.frameWidth ?? 0,
    };
  }, other.id);
}

/** @param {Person} nora @param {Person} ada @param {import('./support/network.js').Guest} link @returns {Promise<[number, Look[]]>} when there was less, and all looks */
async function round(nora, ada, link) {
  await nora.gets(ada, 'all');
  await nora.page.waitForTimeout(2000);
  link.limit(KBPS);
  const began = performance.now();
  /** @type {Look[]} */ const looks = [];
  let less = NaN;
  for (;;) {
    const at = performance.now() - began;
    const seen = { at, ...(await look(nora, ada)) };
    looks.push(seen);
    if (Number.isNaN(less) && (seen.isLess || seen.state === 'suspended')) less = performance.now() - began;
    if (performance.now() - began > (Number.isNaN(less) ? 60_000 : less + SETTLED_MS)) break;
    await nora.page.waitForTimeout(200);
  }
  link.limit(null);
  return [less, looks];
}

const network = new Network();
/** @type {import('playwright-core').Browser[]} */ const browsers = [];
// Each of a session of its own: the kernel gives that a share as large as ours (sched(7), autogroup).
const busy = Array.from({ length: loops }, () => spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore', detached: true }));
const deployment = await Deployment.start('embedded', undefined, network.address);
try {
  const person = async (/** @type {string} */ name, /** @type {string} */ chromium, size = { width: 640, height: 400 }) => {
    const browser = await launch({ chromium, origin: deployment.url });
    browsers.push(browser);
    return Person.open(browser, name, { camera: { width: 960, height: 540 }, viewport: size });
  };
  const narrow = network.guest('narrow');
  const { address } = await deployment.room();
  const ada = await (await person('Ada', network.guest('wide').chromium)).join(address);
  const nora = await (await person('Nora', narrow.chromium)).join(address);
  await nora.page.locator('#camera').click();
  await nora.page.locator('#mic').click();
  await nora.hears(ada);
  await nora.limit(ada, { shown: { width: 1920, height: 1080 } });
  console.log(`| round | less after, s | least estimate, kbit/s | looks | of them suspended | widths |\n|---|---|---|---|---|---|`);
  for (let number = 1; number <= rounds; number += 1) {
    const [less, looks] = await round(nora, ada, narrow);
    const estimates = looks.filter(({ at }) => at >= less - 1).map(({ estimate }) => estimate);
    const suspended = looks.filter(({ state }) => state === 'suspended').length;
    const widths = [...new Set(looks.map(({ width }) => width))].join(' → ');
    console.log(`| ${number} | ${(less / 1000).toFixed(1)} | ${Math.min(...estimates)} | ${looks.length} | ${suspended} | ${widths} |`);
  }
} finally {
  for (const loop of busy) loop.kill();
  await Promise.all(browsers.map((browser) => browser.close()));
  await deployment.stop();
  network.close();
}
