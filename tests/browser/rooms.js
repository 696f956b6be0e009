/**
 * What people in a room do that takes the API, the broker, the store and the media server together, in any deployment shape: run
 * by embedded.test.js and cluster.test.js.
 */

import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { eventually } from './support/eventually.js';
import { allSeeAndHear } from './support/person.js';
import { Process, pollingClient } from './support/process.js';
import { screenshot } from './support/screenshots.js';
import { PICTURE, stage, TEST_TIMEOUT_MS } from './support/stage.js';

/** @typedef {import('./support/person.js').Person} Person */

/** @param {'embedded' | 'cluster'} shape */
export function rooms(shape) {
  describe(`rooms, ${shape}`, { timeout: 4 * TEST_TIMEOUT_MS }, () => {
    const on = stage(shape);
    const { person, scenario } = on;

    scenario('three people in the demo see and hear each other', async () => {
      const address = `${on.deployment.url}/#room=three`;
      const ada = await person('Ada', { viewport: PICTURE });
      await ada.page.goto(address);
      await ada.page.locator('#name').fill('Ada');
      await eventually('the preview plays', () =>
        ada.page.evaluate(() => {
          const preview = /** @type {HTMLVideoElement} */ (document.querySelector('#preview'));
          return preview.videoWidth > 0 && preview.currentTime > 0;
        }),
      );
      if (shape === 'embedded') await screenshot(ada.page, 'lobby');
      await ada.enter();
      const ben = await (await person('Ben')).join(address);
      await allSeeAndHear([ada, ben]);

      // A third comes late and finds both.
      const eve = await (await person('Eve')).join(address);
      await allSeeAndHear([ada, ben, eve]);
      for (const one of [ada, ben, eve]) {
        assert.match((await one.page.locator('#count').textContent()) ?? '', /3/);
        await one.isContent();
      }
      if (shape === 'embedded') await screenshot(ada.page, 'room');

      // Ben leaves: his tile goes, the other two go on.
      await ben.leave();
      for (const one of [ada, eve]) {
        await eventually(`${one.name} sees Ben go`, async () => (await one.tile(ben).count()) === 0);
      }
      await allSeeAndHear([ada, eve]);

      // And comes back through the same page.
      await ben.page.locator('#rejoin').click();
      await ben.enter();
      await allSeeAndHear([ada, ben, eve]);
      for (const one of [ada, ben, eve]) await one.isContent();
      if (on.deployment.balancer) {
        const [first, second] = on.deployment.balancer.served;
        assert.ok(first > 10 && second > 10, `both APIs were asked: ${first} and ${second} times`);
      }
    });

    scenario('muting is silent at once and shown to the others', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await (await person('Ada')).join(address);
      const ben = await (await person('Ben')).join(address);
      await allSeeAndHear([ada, ben]);
      await ada.page.locator('#mic').click();
      await ben.page.locator(`.tile.muted[data-participant="${ada.id}"]`).waitFor();
      await eventually('a second of silence', async () => {
        const energy = async () => (await ben.receptions())[ada.id].microphone.energy;
        const before = await energy();
        await ben.page.waitForTimeout(1000);
        const after = await energy();
        if (after - before > 1e-6) throw new Error(`energy ${before} to ${after}`);
        return true;
      });
      await ben.sees(ada);
      await ada.page.locator('#mic').click();
      await ben.page.locator(`.tile[data-participant="${ada.id}"]:not(.muted)`).waitFor();
      await allSeeAndHear([ada, ben]);
      for (const one of [ada, ben]) await one.isContent();
    });

    scenario('a client that only polls takes part', async () => {
      const room = await on.deployment.room();
      const ada = await (await person('Ada')).join(room.address);
      const ben = await (await person('Ben')).join(room.address);
      const client = new Process('polling-client', pollingClient(), [on.deployment.apis.join(','), room.id, room.token, 'Poll']);
      try {
        const packets = async () => {
          const report = JSON.parse(client.lines.at(-1) ?? '{"tracks": []}');
          assert.deepEqual(report.errors ?? [], []);
          return report;
        };
        for (const one of [ada, ben]) {
          for (const kind of ['audio', 'video']) {
            let first = -1;
            await eventually(`the polling client receives ${kind} of ${one.name}`, async () => {
              const report = await packets();
              const track = report.tracks.find((/** @type {any} */ t) => t.participant_id === one.id && t.kind === kind);
              if (!track) throw new Error(JSON.stringify(report));
              if (first < 0) first = track.packets;
              return track.packets >= first + 10;
            });
          }
        }
        const { participant_id: id } = await packets();
        await ada.sees({ id });
        await ben.sees({ id });
        const { microphone } = (await ada.receptions())[id];
        assert.deepEqual(microphone.codecs, ['audio/opus']);
        client.child.stdin.end();
        await eventually('it leaves', async () => (await ada.tile({ id }).count()) === 0);
        await allSeeAndHear([ada, ben]);
      } finally {
        await client.stop();
      }
      for (const one of [ada, ben]) await one.isContent();
    });

    // Two minutes: once, where the two sides' requests come by different APIs.
    if (shape === 'cluster') {
      scenario('fifty rounds of both sides renegotiating at once', async () => {
        const address = (await on.deployment.room()).address;
        const ada = await (await person('Ada')).join(address);
        const ben = await (await person('Ben')).join(address);
        const eve = await (await person('Eve')).join(address);
        await allSeeAndHear([ada, ben, eve]);
        // What Ada publishes makes the server offer to Ben just while Ben offers, and the other way round.
        const rounds = (/** @type {Person} */ one) =>
          one.page.evaluate(async () => {
            const { localParticipant } = window.switchyard.room;
            const canvas = document.createElement('canvas');
            canvas.getContext('2d');
            for (let round = 0; round < 50; round += 1) {
              const [track] = canvas.captureStream(5).getVideoTracks();
              await localParticipant.publish(track, { source: 'other' });
              await localParticipant.unpublish(track);
              track.stop();
            }
          });
        const before = await Promise.all([ada, ben].map((one) => one.page.evaluate(() => window.switchyard.room.revision)));
        await Promise.all([rounds(ada), rounds(ben)]);
        const afterwards = await Promise.all([ada, ben].map((one) => one.page.evaluate(() => window.switchyard.room.revision)));
        for (const [index, revision] of afterwards.entries()) {
          assert.ok(revision - before[index] >= 100, `negotiations: ${before[index]} to ${revision}`);
        }
        await allSeeAndHear([ada, ben, eve]);
        assert.ok(ada.collisions + ben.collisions > 0, 'the two sides never offered at once');
        // Nothing of what came and went is left behind, and the descriptions did not grow with the rounds.
        for (const one of [ada, ben, eve]) {
          await eventually(`${one.name} knows of no other track`, () =>
            one.page.evaluate(() =>
              [...window.switchyard.room.participants.values()].every((participant) => participant.tracks.size === 2),
            ),
          );
          const lines = await one.page.evaluate(() => window.switchyard.room.peerConnection.getTransceivers().length);
          assert.ok(lines <= 14, `${one.name} has ${lines} m-lines`);
          await one.isContent();
        }
      });
    }

    scenario('people come and go while others publish', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await (await person('Ada')).join(address);
      const ben = await (await person('Ben')).join(address);
      await allSeeAndHear([ada, ben]);
      const publishing = ada.page.evaluate(async () => {
        const canvas = document.createElement('canvas');
        canvas.getContext('2d');
        while (!(/** @type {any} */ (window).enough)) {
          const [track] = canvas.captureStream(5).getVideoTracks();
          await window.switchyard.room.localParticipant.publish(track, { source: 'other' });
          await window.switchyard.room.localParticipant.unpublish(track);
          track.stop();
        }
      });
      for (let round = 0; round < 3; round += 1) {
        const guest = await (await person(`Guest ${round}`)).join(address);
        await guest.sees(ben);
        await guest.leave();
        await guest.close();
      }
      await ada.page.evaluate(() => Object.assign(window, { enough: true }));
      await publishing;
      await allSeeAndHear([ada, ben]);
      for (const one of [ada, ben]) await one.isContent();
    });

    scenario('an ICE restart keeps the media', async () => {
      const address = (await on.deployment.room()).address;
      const ada = await (await person('Ada')).join(address);
      const ben = await (await person('Ben')).join(address);
      await allSeeAndHear([ada, ben]);
      const name = () =>
        ada.page.evaluate(() => /a=ice-ufrag:(\S+)/.exec(window.switchyard.room.peerConnection.localDescription.sdp)?.[1]);
      for (let round = 0; round < 3; round += 1) {
        const old = await name();
        await ada.page.evaluate(() => window.switchyard.room.restartIce());
        await eventually('new credentials', async () => (await name()) !== old);
        await allSeeAndHear([ada, ben]);
      }
      for (const one of [ada, ben]) await one.isContent();
    });

    for (const transport of ['websocket', 'sse', 'polling']) {
      scenario(`events by ${transport}`, async () => {
        const room = await on.deployment.room();
        const address = `${on.deployment.url}/?transport=${transport}#session=${room.id}&token=${room.token}`;
        const ada = await (await person('Ada')).join(address);
        const ben = await (await person('Ben')).join(address);
        await allSeeAndHear([ada, ben]);
        for (const one of [ada, ben]) {
          assert.equal(await one.page.evaluate(() => window.switchyard.room.transport), transport);
        }
        for (let round = 0; round < 3; round += 1) {
          await ada.page.locator('#mic').click();
          await ben.page.locator(`.tile.muted[data-participant="${ada.id}"]`).waitFor();
          await ada.page.locator('#mic').click();
          await ben.page.locator(`.tile[data-participant="${ada.id}"]:not(.muted)`).waitFor();
        }
        await ada.leave();
        await eventually('Ben sees Ada go', async () => (await ben.tile(ada).count()) === 0);
        for (const one of [ada, ben]) assert.deepEqual(one.complaints, []);
      });
    }

    scenario('the SDK spreads its requests over several APIs by itself', async () => {
      // Pages may call only their own server (CSP); an application's own pages decide that for themselves.
      const room = await on.deployment.room();
      const apis = on.deployment.apis;
      const watcher = await (await person('Watcher')).join(room.address);
      for (const transport of ['websocket', 'sse', 'polling']) {
        const guest = await person(`Guest by ${transport}`, { bypassCSP: true });
        await guest.page.goto(`${apis[0]}/#session=${room.id}&token=${room.token}`);
        guest.id = await guest.page.evaluate(
          async ([link, bases, name, by]) => {
            const { Room } = await import('/sdk/switchyard.js');
            const options = { name, apis: bases, transport: by, audio: true, video: true };
            const joined = await Room.join(link, options);
            Object.assign(window, { sinceJoin: true });
            window.switchyard.room = joined;
            // Sound that nobody plays is not decoded.
            const play = (/** @type {MediaStreamTrack | null} */ track) => {
              if (track) Object.assign(new Audio(), { autoplay: true, srcObject: new MediaStream([track]) });
            };
            joined.on('trackSubscribed', play);
            for (const participant of joined.participants.values()) {
              for (const publication of participant.tracks.values()) play(publication.track);
            }
            return joined.localParticipant.id;
          },
          /** @type {const} */ ([`${apis[0]}/#session=${room.id}&token=${room.token}`, apis, guest.name, transport]),
        );
        await allSeeAndHear([watcher, guest]);
        assert.deepEqual(guest.complaints, []);
        await guest.page.evaluate(() => window.switchyard.room.leave());
        await eventually('it leaves', async () => (await watcher.tile(guest).count()) === 0);
        await guest.close();
      }
      await watcher.isContent();
    });

    scenario('the session closes for everyone', async () => {
      const room = await on.deployment.room();
      const ada = await (await person('Ada')).join(room.address);
      const ben = await (await person('Ben')).join(room.address);
      await allSeeAndHear([ada, ben]);
      await on.deployment.backend('DELETE', `/v1/sessions/${room.id}`);
      for (const one of [ada, ben]) {
        await one.page.locator('#left-screen').waitFor({ state: 'visible' });
        assert.match((await one.page.locator('#left-heading').textContent()) ?? '', /closed/);
      }
    });
  });
}
