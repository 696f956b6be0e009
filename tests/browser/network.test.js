/**
 * Real browsers behind bad links: what is sent to them fits, what does not is told, and nobody else notices. The
 * figures are getStats' own; a frozen picture is what browsers count (webrtc-stats, freezeCount).
 */

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { Deployment } from './support/deployment.js';
import { encoders } from './support/encoder.js';
import { eventually } from './support/eventually.js';
import { Network } from './support/network.js';
import { Person, launch } from './support/person.js';

/** Wide enough for three encodings. */
const CAMERA = { width: 960, height: 540 };
/** As large as somebody may want to see one of many. */
const LARGE = { width: 1920, height: 1080 };
/** Two cores draw, encode and decode for everybody: with windows of the usual size and cameras at their usual speed ten people are too many. */
const WINDOW = { viewport: { width: 640, height: 400 } };
const SMALL = { ...WINDOW, camera: { width: 320, height: 180 }, fps: 5 };
/** Those who make up the numbers. */
const CROWD = ['Eve', 'Finn', 'Gwen', 'Hal', 'Ines', 'Jo'];

/** @type {Network} */ let network;
/** @type {Deployment} */ let deployment;
/** @type {import('playwright-core').Browser[]} */ const browsers = [];

before(async () => {
  network = new Network();
  deployment = await Deployment.start('embedded', undefined, network.address);
});

afterEach(() => Promise.all(browsers.splice(0).map((browser) => browser.close())));

after(async () => {
  await deployment?.stop();
  network?.close();
});

/** @param {string} name @param {string} [chromium] @param {{ fps?: number }} [options] and those of Person.open */
async function person(name, chromium, { fps, ...options } = {}) {
  const browser = await launch({ chromium, origin: deployment.url, fps });
  browsers.push(browser);
  return Person.open(browser, name, { camera: CAMERA, ...options });
}

/** What somebody receives, summed up since two looks. @param {Person} one */
async function look(one) {
  const figures = await one.figures();
  const at = performance.now();
  return { at, ...figures };
}

/** @param {Awaited<ReturnType<typeof look>>} from @param {Awaited<ReturnType<typeof look>>} to */
function between(from, to) {
  const seconds = (to.at - from.at) / 1000;
  return {
    seconds,
    concealed: (to.concealed - from.concealed) / Math.max(1, to.samples - from.samples),
    frozen: (to.frozen - from.frozen) / (seconds * Math.max(1, to.pictures)),
    framesPerSecond: (to.frames - from.frames) / seconds,
  };
}

describe('bad links', { timeout: 400_000 }, () => {
  test('a link that becomes narrow, very narrow, and wide again; losses on another; nobody else is affected', async (t) => {
    const narrow = network.guest('narrow');
    const lossy = network.guest('lossy');
    lossy.lose(5);
    const { address } = await deployment.room();
    const ada = await (await person('Ada')).join(address);
    const ben = await (await person('Ben', undefined, WINDOW)).join(address);
    const nora = await (await person('Nora', narrow.chromium, WINDOW)).join(address);
    const lars = await (await person('Lars', lossy.chromium, WINDOW)).join(address);
    // One speaks and is seen, the others listen; so two cores draw and encode for everybody.
    for (const one of [ben, nora, lars]) {
      await one.page.locator('#camera').click();
      await one.page.locator('#mic').click();
    }
    for (const one of [ben, nora, lars]) {
      await one.hears(ada);
      await one.limit(ada, { shown: LARGE });
      await widthIs(one, ada, CAMERA.width, 20);
    }

    const losses = [await look(lars)];
    const others = [await look(ben)];

    await nora.gets(ada, 'all');
    // Less than the largest encoding, even of a camera that has no time for all its frames.
    narrow.limit(250);
    const narrowed = performance.now();
    const before = narrow.received();
    // A smaller picture or fewer frames, whichever fits.
    const { encoding, temporal } = await nora.gets(ada, 'less');
    t.diagnostic(`at 250 kbit/s: less after ${seconds(narrowed)} s, encoding ${encoding} with temporal layer ${temporal} at most`);
    await nora.page.waitForTimeout(3000);
    const settled = [await look(nora)];
    const [bytes, since] = [narrow.received(), performance.now()];
    assert.ok(bytes > before);
    await nora.page.waitForTimeout(10_000);
    settled.push(await look(nora));
    const rate = ((narrow.received() - bytes) * 8) / (performance.now() - since);
    const at250 = between(settled[0], settled[1]);
    t.diagnostic(`at 250 kbit/s: ${rate.toFixed(0)} kbit/s arrive, ${show(at250)}`);
    await nora.sees(ada);
    await nora.hears(ada);
    assert.ok(at250.concealed < 0.05, 'the voice is whole');
    assert.ok(at250.framesPerSecond > 4, 'the picture moves');

    // A voice with all its headers, and no more.
    narrow.limit(64);
    await eventually('the picture is suspended, and its viewer is told', () => nora.isTold(ada, true)).catch(async (error) => {
      throw new Error(`${error.message}; Nora: ${await nora.hindrances()}`);
    });
    const heard = [await look(nora)];
    await nora.page.waitForTimeout(8000);
    heard.push(await look(nora));
    const at64 = between(heard[0], heard[1]);
    t.diagnostic(`at 64 kbit/s: ${show(at64)}`);
    await nora.hears(ada);

    // Less than a voice: it has gaps, and the connection holds.
    narrow.limit(30);
    heard.push(await look(nora));
    await nora.page.waitForTimeout(5000);
    heard.push(await look(nora));
    t.diagnostic(`at 30 kbit/s: ${show(between(heard[2], heard[3]))}`);

    narrow.limit(null);
    const freed = performance.now();
    await eventually('the picture is resumed, and its viewer is told', () => nora.isTold(ada, false));
    await widthIs(nora, ada, CAMERA.width, 30);
    t.diagnostic(`wide again: the best picture after ${seconds(freed)} s`);
    assert.ok(performance.now() - freed < 20_000 * patience());

    losses.push(await look(lars));
    const lost = between(losses[0], losses[1]);
    t.diagnostic(`5 % loss: ${show(lost)}`);
    assert.ok(lost.frozen < 0.02, 'pictures hardly ever stand still');
    assert.ok(lost.concealed < 0.03, 'voices are repaired');
    others.push(await look(ben));
    const unaffected = between(others[0], others[1]);
    t.diagnostic(`beside them: ${show(unaffected)}`);
    assert.ok(unaffected.frozen < 0.01 && unaffected.concealed < 0.02, 'who has a good link notices nothing');
    for (const one of [ada, ben, nora, lars]) await one.isContent();
  });

  test('ten people with cameras, of whom one has a narrow link and one loses packets', async (t) => {
    const narrow = network.guest('narrow10');
    const lossy = network.guest('lossy10');
    lossy.lose(5);
    const { id, address } = await deployment.room();
    const quiet = await launch({ origin: deployment.url, fps: 5 });
    browsers.push(quiet);
    await encoders(quiet, deployment, id, CROWD);
    // One speaks, and the others listen.
    const ada = await (await person('Ada')).join(address);
    await ada.page.locator('#tiles').evaluate((tiles) => (tiles.style.display = 'none'));
    const ben = await (await person('Ben', undefined, SMALL)).join(address);
    const nora = await (await person('Nora', narrow.chromium, SMALL)).join(address);
    const lars = await (await person('Lars', lossy.chromium, SMALL)).join(address);
    for (const one of [ben, nora, lars]) await one.page.locator('#mic').click();
    const crowd = await eventually('everybody is there', () => ben.others(CROWD));
    const all = [ada, ben, nora, lars, ...crowd];
    for (const one of [ben, nora, lars]) {
      await one.seesAll(all.filter((other) => other !== one));
      await one.hears(ada);
      await one.limit(ada, { shown: LARGE, priority: 3 });
      await widthIs(one, ada, CAMERA.width, 30);
    }
    const [losses, others] = [await look(lars), await look(ben)];

    narrow.limit(300);
    const narrowed = performance.now();
    await eventually('Nora gets less of what she looks at, and is told what she does not get', async () => {
      const { camera } = (await nora.receptions())[ada.id];
      const held = await nora.page.locator('.tile-suspended:visible').count();
      if (camera.width < CAMERA.width && held > 0) return true;
      throw new Error(`Ada is ${camera.width} wide, ${held} are suspended`);
    });
    t.diagnostic(`ten, at 300 kbit/s: smaller and suspended after ${seconds(narrowed)} s`);
    await nora.page.waitForTimeout(3000);
    const [settled, bytes, since] = [await look(nora), narrow.received(), performance.now()];
    await nora.page.waitForTimeout(8000);
    const at300 = between(settled, await look(nora));
    const rate = ((narrow.received() - bytes) * 8) / (performance.now() - since);
    t.diagnostic(`ten, at 300 kbit/s: ${rate.toFixed(0)} kbit/s arrive, ${show(at300)}`);
    await nora.hears(ada);
    await nora.sees(ada);
    assert.ok(at300.concealed < 0.05, 'the voice is whole');

    narrow.limit(null);
    const freed = performance.now();
    for (const other of all) if (other !== nora) await eventually(`${other.name} is back`, () => nora.isTold(other, false));
    await widthIs(nora, ada, CAMERA.width, 30);
    t.diagnostic(`ten, wide again: everybody, and the best of whom she looks at, after ${seconds(freed)} s`);
    await nora.seesAll(all.filter((other) => other !== nora));

    const lost = between(losses, await look(lars));
    const unaffected = between(others, await look(ben));
    t.diagnostic(`ten, 5 % loss: ${show(lost)}`);
    t.diagnostic(`ten, beside them: ${show(unaffected)}`);
    assert.ok(lost.concealed < 0.03, 'voices are repaired');
    assert.ok(unaffected.concealed < 0.02, 'who has a good link hears no difference');
    for (const one of [ada, ben, nora, lars]) await one.isContent();
  });
});

/** @param {Person} one @param {Person} other @param {number} width @param {number} seconds */
async function widthIs(one, other, width, seconds) {
  const look = async () => {
    const { camera } = (await one.receptions())[other.id] ?? {};
    if (camera?.width === width) return true;
    throw new Error(`it is ${camera?.width} wide`);
  };
  await eventually(`${one.name} sees ${other.name} ${width} pixels wide`, look, seconds).catch(async (error) => {
    throw new Error(`${error.message}; ${one.name}: ${await one.hindrances()}; ${other.name}: ${await other.hindrances()}`);
  });
}

function patience() {
  return Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);
}

/** @param {number} since */
function seconds(since) {
  return ((performance.now() - since) / 1000).toFixed(1);
}

/** @param {ReturnType<typeof between>} figures */
function show({ seconds, frozen, concealed, framesPerSecond }) {
  const percent = (/** @type {number} */ part) => `${(100 * part).toFixed(2)} %`;
  return `${framesPerSecond.toFixed(1)} frames/s, frozen ${percent(frozen)}, concealed ${percent(concealed)} in ${seconds.toFixed(0)} s`;
}
