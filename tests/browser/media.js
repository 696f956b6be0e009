/**
 * What the page shows, and what media comes of it: between the browser and the one media server that it is connected to. No other
 * process has a part in it, so embedded.test.js alone runs it.
 */

import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { encryptMedia } from './support/encrypted.js';
import { eventually } from './support/eventually.js';
import { allSeeAndHear } from './support/person.js';
import { screenshot } from './support/screenshots.js';
import { PICTURE, stage, TEST_TIMEOUT_MS } from './support/stage.js';

/** @typedef {import('./support/person.js').Person} Person */

export function media() {
  describe('page and media, embedded', { timeout: 4 * TEST_TIMEOUT_MS }, () => {
    const on = stage('embedded');
    const { person, scenario } = on;

    scenario('a screen share is seen by the others until it ends', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await (await person('Ada', { viewport: PICTURE })).join(address);
      const ben = await (await person('Ben')).join(address);
      const eve = await (await person('Eve')).join(address);
      await allSeeAndHear([ada, ben, eve]);
      for (const round of [1, 2]) {
        await ben.page.locator('#share').click();
        for (const one of [ada, eve]) {
          await one.sees(ben, 'screen');
          await one.tile(ben, 'screen').waitFor({ state: 'visible' });
        }
        if (round === 1) await screenshot(ada.page, 'screen-share');
        await ben.page.locator('#share').click();
        for (const one of [ada, eve]) {
          await eventually('the screen is gone', async () => (await one.tile(ben, 'screen').count()) === 0);
        }
      }
      await allSeeAndHear([ada, ben, eve]);
      for (const one of [ada, ben, eve]) await one.isContent();
    });

    scenario('the page runs and loads nothing but its own, and could not if it wanted to', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await (await person('Ada')).join(address);
      const ben = await (await person('Ben')).join(address);
      await allSeeAndHear([ada, ben]);
      for (const one of [ada, ben]) await one.isContent();
      assert.ok(ada.asked.has(new URL(ada.page.url()).origin), 'what is asked is noted');

      const response = await ada.page.request.get(on.deployment.url);
      const headers = response.headers();
      assert.doesNotMatch(headers['content-security-policy'], /unsafe|\*|https?:/);
      assert.match(headers['content-security-policy'], /frame-ancestors 'none'/);
      assert.equal(headers['x-content-type-options'], 'nosniff');
      assert.match(headers['permissions-policy'], /camera=\(self\)/);

      const refused = await ada.page.evaluate(async () => {
        /** @type {string[]} */
        const refused = [];
        addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective));
        const script = document.createElement('script');
        script.textContent = 'window.ranInline = true';
        const image = document.createElement('img');
        image.src = 'http://127.0.0.1:18999/pixel';
        document.body.append(script, image);
        await fetch('http://127.0.0.1:18999/').catch(() => {});
        try {
          new WebSocket('ws://127.0.0.1:18999/');
        } catch {
          // Refused at once or later, as browsers like.
        }
        const started = performance.now();
        while (refused.length < 4 && performance.now() - started < 10_000) await new Promise(requestAnimationFrame);
        return { refused: refused.sort(), ran: 'ranInline' in window };
      });
      assert.deepEqual(refused, { refused: ['connect-src', 'connect-src', 'img-src', 'script-src-elem'], ran: false });
    });

    scenario('a camera comes in three sizes, and each watcher gets the one that was asked for', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await (await person('Ada', { camera: { width: 960, height: 540 } })).join(address);
      const ben = await (await person('Ben')).join(address);
      const eve = await (await person('Eve')).join(address);
      // Whatever their tiles are: what nobody can see is not sent.
      const shown = { width: 1920, height: 1080 };
      for (const one of [ben, eve]) {
        await one.sees(ada);
        await one.limit(ada, { shown });
      }
      await eventually('three encodings are sent', async () => {
        const sent = await ada.encodings();
        if (['q', 'h', 'f'].every((rid) => sent[rid] > 5)) return true;
        throw new Error(`${JSON.stringify(sent)}; ${await ada.hindrances()}`);
      });
      const comesIn = (/** @type {Person} */ one, /** @type {number} */ width) =>
        eventually(`${one.name} sees Ada ${width} pixels wide`, async () => {
          const { camera } = (await one.receptions())[ada.id];
          if (camera.width === width) return camera;
          throw new Error(`it is ${camera.width} wide`);
        });
      await comesIn(eve, 960);
      // A decoder that loses its picture asks for a key frame; changes give it no reason to.
      const before = await comesIn(ben, 960);
      for (const [maxEncoding, width] of [[0, 240], [1, 480], [2, 960], [0, 240]]) {
        await ben.limit(ada, { maxEncoding, shown });
        await comesIn(ben, width);
        await ben.sees(ada);
      }
      const changed = (await ben.receptions())[ada.id].camera;
      assert.equal(changed.requests, before.requests, 'its decoder never lost the picture');
      // A pause of three seconds makes it ask.
      await ben.limit(ada, { paused: true });
      let frames = -1;
      await eventually('the paused picture stands still', async () => {
        const seen = (await ben.receptions())[ada.id].camera.frames;
        const stands = seen === frames;
        frames = seen;
        if (!stands) await new Promise((resolve) => setTimeout(resolve, 500));
        return stands;
      });
      await ben.limit(ada, { shown });
      await comesIn(ben, 960);
      await comesIn(eve, 960);
      await allSeeAndHear([ada, ben, eve]);
      for (const one of [ada, ben, eve]) await one.isContent();
    });

    scenario('nobody sends what nobody can see, and it is there as soon as somebody does', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await (await person('Ada', { camera: { width: 960, height: 540 } })).join(address);
      const sends = (/** @type {string} */ what, /** @type {string[]} */ rids) =>
        eventually(`Ada sends ${what}`, async () => {
          const before = await ada.encodings();
          await ada.page.waitForTimeout(1000);
          const after = await ada.encodings();
          const sent = Object.keys(after).filter((rid) => after[rid] > before[rid]);
          if (sent.sort().join() !== rids.join()) throw new Error(`she sends ${sent.join() || 'nothing'}`);
          return true;
        });
      await sends('nothing while she is alone', []);
      const ben = await (await person('Ben', { viewport: { width: 240, height: 400 } })).join(address);
      await ben.sees(ada);
      await sends('the smallest, for a small window', ['q']);
      await ben.page.setViewportSize({ width: 1600, height: 1000 });
      await eventually('Ben gets a picture for a large window', async () => {
        const { camera } = (await ben.receptions())[ada.id];
        if (camera.width === 960) return true;
        throw new Error(`it is ${camera.width} wide`);
      });
      await ada.sees(ben);
      for (const one of [ada, ben]) await one.isContent();
    });

    scenario('media that is encrypted end to end passes, and each watcher gets the size that was asked for', async () => {
      const address = (await on.deployment.room()).address;
      const encrypted = async (/** @type {string} */ name, /** @type {object} */ options, key = 0xa5) => {
        const one = await person(name, { bypassCSP: true, ...options });
        await one.context.addInitScript(encryptMedia, key);
        return one.join(address);
      };
      const ada = await encrypted('Ada', { camera: { width: 960, height: 540 } });
      const ben = await encrypted('Ben', {});
      await allSeeAndHear([ada, ben]);
      const shown = { width: 1920, height: 1080 };
      for (const [maxEncoding, width] of [[0, 240], [2, 960], [1, 480]]) {
        await ben.limit(ada, { maxEncoding, shown });
        await eventually(`Ben sees Ada ${width} pixels wide`, async () => {
          const { camera } = (await ben.receptions())[ada.id];
          if (camera.width === width) return true;
          throw new Error(`it is ${camera.width} wide; ${await ada.hindrances()}; ${await ben.hindrances()}`);
        });
        await ben.sees(ada);
      }
      // Whoever has another key sees nothing: it is encrypted indeed.
      const eve = await encrypted('Eve', {}, 0x5a);
      await eventually('packets of Ada come to Eve, and no picture', async () => {
        const { packets, camera } = await pictures(eve);
        if (packets > 50) assert.equal(camera, 0, 'she decodes what she has no key for');
        return packets > 50;
      });
      for (const one of [ada, ben]) await one.isContent();
    });

    scenario('who speaks is highlighted because the server says so', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await person('Ada');
      // Ada's own ears tell her nothing.
      await ada.context.addInitScript(() => {
        RTCRtpReceiver.prototype.getSynchronizationSources = () => [];
      });
      await ada.join(address);
      const ben = await (await person('Ben')).join(address);
      const eve = await (await person('Eve')).join(address);
      await allSeeAndHear([ada, ben, eve]);
      await ada.page.evaluate(() => {
        const told = /** @type {string[][]} */ ([]);
        Object.assign(window, { told });
        window.switchyard.room.on('serverEvent', (/** @type {any} */ { type, data }) => {
          if (type === 'speakers.changed') told.push(data.speakers.map((/** @type {any} */ { participant_id: id }) => id));
        });
      });
      const told = () => ada.page.evaluate(() => /** @type {any} */ (window).told);
      const speaking = (/** @type {Person} */ one) => ada.page.locator(`.tile.speaking[data-participant="${one.id}"]`);
      await ben.speak();
      await speaking(ben).waitFor();
      assert.ok((await told()).some((/** @type {string[]} */ list) => list.includes(ben.id)), JSON.stringify(await told()));
      await ben.page.locator('#mic').click();
      await speaking(ben).waitFor({ state: 'detached' });
      await eve.speak();
      await speaking(eve).waitFor();
      assert.equal(await speaking(ben).count(), 0);
      assert.ok(!(await told()).at(-1).includes(ben.id));
      for (const one of [ada, ben, eve]) await one.isContent();
    });

    scenario('the figures show layers, rates, loss, round trip and estimate, and how good each connection is', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await (await person('Ada', { viewport: PICTURE })).join(address);
      const ben = await (await person('Ben')).join(address);
      await allSeeAndHear([ada, ben]);
      let asked = 0;
      ada.page.on('request', (request) => {
        if (new URL(request.url()).pathname.endsWith('/stats')) asked += 1;
      });
      await ada.page.locator('#stats').click();
      const shows = (/** @type {Person} */ one, /** @type {RegExp[]} */ figures) =>
        eventually(`the figures of ${one.name}`, async () => {
          const text = (await ada.tile(one).locator('.tile-stats').textContent()) ?? '';
          if (figures.every((figure) => figure.test(text))) return text;
          throw new Error(text);
        });
      const both = [/rate +[\d.]+ [kM]bit\/s/, /loss +\d+\.\d %, jitter \d+ ms/, /rtt +\d+ ms/, /estimate +[\d.]+ [kM]bit\/s/];
      await shows(ben, [/↓ VP8 \d+×\d+ \d+ fps\n +layer +[01], spatial 0, temporal \d/, /↓ opus/, ...both]);
      await shows(ada, [/↑ VP8 \d+×\d+ \d+ fps\n +layers +\d+ \/ (\d+|off) kbit\/s/, /↑ opus/, ...both]);
      // What it says is what the server says to anyone who asks.
      const stats = await ada.page.evaluate(() => window.switchyard.room.serverStats());
      assert.equal(stats.state, 'connected');
      assert.equal(stats.subscribed.length, 2);
      for (const one of [ada, ben]) {
        const quality = ada.tile(one).locator('.tile-quality');
        assert.match((await quality.getAttribute('aria-label')) ?? '', /^Connection: (excellent|good)$/);
      }
      await screenshot(ada.page, 'stats');
      await ada.page.locator('#stats').click();
      assert.equal(await ada.tile(ben).locator('.tile-stats').isVisible(), false);
      const before = asked;
      assert.ok(before > 0);
      await ada.page.waitForTimeout(3000);
      assert.equal(asked, before, 'nothing is asked while nothing is shown');
      // A connection that gets worse is shown in its tile.
      await ada.page.evaluate((id) => {
        const { room } = window.switchyard;
        const participant = room.participants.get(id);
        participant.quality = 'poor';
        room.emit('qualityChanged', participant);
      }, ben.id);
      await ada.tile(ben).locator('.tile-quality[data-quality=poor][aria-label="Connection: poor"]').waitFor();
      for (const one of [ada, ben]) await one.isContent();
    });

    scenario('who leaves is asked for stars, and may say nothing', async () => {
      const room = await on.deployment.room();
      const ada = await (await person('Ada', { viewport: PICTURE })).join(room.address);
      const ben = await (await person('Ben')).join(room.address);
      await allSeeAndHear([ada, ben]);
      const ratings = async () => (await on.deployment.backend('GET', `/v1/sessions/${room.id}/ratings`)).ratings;
      await ben.leave();
      await ben.page.locator('#rating').waitFor({ state: 'visible' });
      await ben.page.locator('#rating-skip').click();
      await ben.page.locator('#rating').waitFor({ state: 'hidden' });
      await ada.leave();
      assert.equal(await ada.page.locator('#rating-more').isVisible(), false, 'first the stars');
      // By keyboard alone.
      await ada.page.locator('#rating input[value="1"]').focus();
      await ada.page.keyboard.press('Space');
      for (let star = 2; star <= 4; star += 1) await ada.page.keyboard.press('ArrowRight');
      assert.equal(await ada.page.locator('.star.lit').count(), 4);
      assert.equal(await ada.page.locator('#rating input:checked').getAttribute('aria-label'), '4 stars');
      await ada.page.locator('#rating-comment').fill('A bit of echo');
      await screenshot(ada.page, 'rating');
      await ada.page.locator('#rating-send').click();
      await eventually('it is thanked for', async () => /Thank you/.test((await ada.page.locator('#rating-status').textContent()) ?? ''));
      const [rating, ...more] = await ratings();
      assert.deepEqual(more, [], 'who skipped it said nothing');
      assert.deepEqual([rating.participant_id, rating.stars, rating.comment], [ada.id, 4, 'A bit of echo']);
      const { duration_ms: duration, quality, protocol } = rating.network;
      assert.ok(duration > 1000 && protocol === 'udp' && quality.excellent + quality.good > 0.5, JSON.stringify(rating.network));
      for (const one of [ada, ben]) assert.deepEqual(one.complaints, []);
      // And nobody is asked again before there was another call.
      await ada.page.locator('#rejoin').click();
      await ada.page.locator('#lobby-screen').waitFor({ state: 'visible' });
      assert.equal(await ada.page.locator('#rating').isVisible(), false);
    });

    for (const codec of ['VP8', 'VP9', 'H264', 'AV1']) {
      scenario(`${codec} is published and decoded`, async () => {
        const address = (await on.deployment.room()).address;
        const ada = await person('Ada');
        await ada.context.addInitScript(preferCodec, codec);
        await ada.join(address);
        const ben = await (await person('Ben')).join(address);
        const late = await (await person('Late')).join(address);
        for (const one of [ben, late]) {
          const { codecs, width } = await one.sees(ada);
          assert.deepEqual(codecs, [`video/${codec}`]);
          assert.ok(width >= 320, `${width} pixels wide`);
        }
        for (const one of [ada, ben, late]) await one.isContent();
      });
    }

    scenario('the room fits a phone', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await person('Ada', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
      await ada.join(address);
      const ben = await (await person('Ben')).join(address);
      const eve = await (await person('Eve')).join(address);
      await allSeeAndHear([ada, ben, eve]);
      const { scroll, inner } = await ada.page.evaluate(() => ({
        scroll: document.documentElement.scrollWidth,
        inner: window.innerWidth,
      }));
      assert.ok(scroll <= inner, `the page is ${scroll} wide on a screen of ${inner}`);
      for (const control of ['#mic', '#camera', '#leave']) {
        const box = await ada.page.locator(control).boundingBox();
        assert.ok(box && box.width >= 44 && box.height >= 44, `${control} can be touched: ${JSON.stringify(box)}`);
      }
      await screenshot(ada.page, 'phone');
      await ada.isContent();
    });
  });
}

/** In the page: whatever video is published uses this codec, and its repair. @param {string} codec */
function preferCodec(codec) {
  const { addTransceiver } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addTransceiver = function (track, init) {
    const transceiver = addTransceiver.call(this, track, init);
    if (typeof track !== 'string' && track.kind === 'video') {
      const all = RTCRtpSender.getCapabilities('video')?.codecs ?? [];
      const wanted = all.filter(({ mimeType }) => mimeType === `video/${codec}`);
      if (wanted.length === 0) throw new Error(`this browser has no ${codec}`);
      transceiver.setCodecPreferences([...wanted, ...all.filter(({ mimeType }) => mimeType === 'video/rtx')]);
    }
    return transceiver;
  };
}

/** What comes of everybody's video: packets, and frames that could be decoded. @param {Person} one */
async function pictures(one) {
  return one.page.evaluate(async () => {
    const sums = { packets: 0, camera: 0 };
    const report = /** @type {Map<string, any>} */ (await window.switchyard.room.peerConnection.getStats());
    for (const { type, kind, packetsReceived, framesDecoded } of report.values()) {
      if (type !== 'inbound-rtp' || kind !== 'video') continue;
      sums.packets += packetsReceived;
      sums.camera += framesDecoded;
    }
    return sums;
  });
}
