/**
 * What people in Chromium notice when servers are killed with SIGKILL under their room: RabbitMQ and MongoDB, API instances
 * (by each event transport), media servers again and again with a client among them that only polls.
 */

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Chance } from './support/chance.js';
import { Deployment } from './support/deployment.js';
import { eventually } from './support/eventually.js';
import { killHost } from './support/failover.js';
import { installMeters, METERED, readGapMeter, startGapMeter } from './support/meters.js';
import { nothingNoticed, startNoticing } from './support/notice.js';
import { OwnServices } from './support/own-services.js';
import { allSeeAndHear, launch, Person } from './support/person.js';
import { pollingClient, Process } from './support/process.js';

const PATIENCE = Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);
/** The whole of one test; every wait inside is bounded more tightly. */
const TEST_TIMEOUT_MS = 180_000 * PATIENCE;
/** What a busy machine may take from a kill to media decoded at everybody. */
const RECOVERY_LIMIT_MS = 20_000 * PATIENCE;
/** RabbitMQ's start keeps a small machine busy for some seconds, and with it the audio threads. */
const GAP_LIMIT_MS = 1000 * PATIENCE;
const KILLS = Number(process.env.SWITCHYARD_FAULTS_KILLS ?? 3);
const API_KILLS = 4;

describe('faults', { timeout: 4 * TEST_TIMEOUT_MS }, () => {
  /** @type {OwnServices} */
  let services;
  /** @type {Deployment} */
  let deployment;
  /** @type {import('playwright-core').Browser} */
  let browser;
  /** @type {Person[]} */
  let people = [];

  before(async () => {
    services = await OwnServices.start();
    [deployment, browser] = await Promise.all([Deployment.start('cluster', services.location), launch()]);
  });
  after(async () => {
    await browser?.close();
    await deployment?.stop();
    await services?.stop();
  });
  afterEach(async () => {
    await Promise.all(people.map((person) => person.close()));
    people = [];
  });

  /** @param {string} name @param {string} address */
  async function join(name, address) {
    const person = await Person.open(browser, name, METERED);
    people.push(person);
    await installMeters(person);
    return person.join(address);
  }

  async function nobodyNoticed() {
    await nothingNoticed(people);
    for (const { name, complaints } of people) {
      // Requests that failed are part of it; an exception in the page is not.
      assert.deepEqual(complaints.filter((complaint) => complaint.startsWith('page:')), [], `${name}'s page`);
    }
  }

  /** Ada is shown as muted to all others, and then no more. @param {Person[]} room */
  async function mutesAndUnmutes([ada, ...others]) {
    await ada.page.locator('#mic').click();
    await Promise.all(others.map(({ page }) => page.locator(`.tile.muted[data-participant="${ada.id}"]`).waitFor()));
    await ada.page.locator('#mic').click();
    await Promise.all(others.map(({ page }) => page.locator(`.tile[data-participant="${ada.id}"]:not(.muted)`).waitFor()));
  }

  async function ready() {
    for (const url of deployment.apis) {
      await eventually(`${url} is ready`, async () => (await fetch(`${url}/readyz`)).status === 200, 60);
    }
  }

  test('RabbitMQ and MongoDB killed and restarted: nobody loses sound or picture', { timeout: TEST_TIMEOUT_MS }, async (context) => {
    const { address } = await deployment.room();
    for (const name of ['Ada', 'Ben', 'Eve']) await join(name, address);
    await allSeeAndHear(people);
    await startNoticing(people);
    for (const person of people) await startGapMeter(person, people.length - 1);
    for (const name of /** @type {const} */ (['broker', 'store', 'both'])) {
      await services.change('kill', name);
      const killed = performance.now();
      await services.change('start', name);
      await ready();
      context.diagnostic(`${name} killed: ready again after ${((performance.now() - killed) / 1000).toFixed(1)} s`);
    }
    const readings = await Promise.all(people.map(readGapMeter));
    const gaps = readings.map(({ gap }) => Math.round(gap));
    context.diagnostic(`longest audio gap of each of three: ${gaps.join(', ')} ms`);
    await allSeeAndHear(people);
    await nobodyNoticed();
    await mutesAndUnmutes(people);
    assert.ok(Math.max(...gaps) < GAP_LIMIT_MS, `gaps ${gaps} ms`);
    const late = await join('Late', address);
    await late.sees(people[0]);
    await people[0].sees(late);
  });

  test('API instances killed under an SDK on each transport: all goes on', { timeout: TEST_TIMEOUT_MS }, async (context) => {
    const chance = new Chance((text) => context.diagnostic(text));
    const room = await deployment.room();
    const transports = ['websocket', 'sse', 'polling'];
    for (const transport of transports) {
      await join(`By ${transport}`, `${deployment.url}/?transport=${transport}#session=${room.id}&token=${room.token}`);
    }
    await allSeeAndHear(people);
    await startNoticing(people);
    /** @type {number[]} */
    const times = [];
    for (let round = 0; round < API_KILLS; round += 1) {
      // Whoever is in front mutes: each transport hears of it from each of the others.
      const inFront = people.slice(round % 3).concat(people.slice(0, round % 3));
      await people[0].page.waitForTimeout(chance.between(0, 1000));
      await deployment.crashApi(round % 2);
      const killed = performance.now();
      const told = mutesAndUnmutes(inFront).then(() => times.push(Math.round(performance.now() - killed)));
      await Promise.all([told, people[0].page.waitForTimeout(chance.between(200, 1500)).then(() => deployment.startApiAgain(round % 2))]);
    }
    context.diagnostic(`muted and unmuted, and shown so to everyone, after the kill: ${times.join(', ')} ms`);
    await allSeeAndHear(people);
    await nobodyNoticed();
    for (const [index, { page }] of people.entries()) {
      await eventually('its transport is open', () => page.evaluate((name) => window.switchyard.room.transport === name, transports[index]));
    }
  });

  test('media servers killed again and again, with a client that only polls', { timeout: TEST_TIMEOUT_MS }, async (context) => {
    const chance = new Chance((text) => context.diagnostic(text));
    const room = await deployment.room();
    await join('Ada', room.address);
    await join('Ben', room.address);
    const client = new Process('polling-client', pollingClient(), [deployment.apis.join(','), room.id, room.token, 'Poll']);
    try {
      /** Everyone, the polling client too, gets audio and video of everyone. */
      const whole = async () => {
        await allSeeAndHear(people);
        const { participant_id: id } = await eventually('the polling client says something', async () => JSON.parse(client.lines.at(-1) ?? 'null'));
        for (const person of people) {
          await person.sees({ id });
          /** @type {Record<string, number>} */
          const first = {};
          await eventually(`the polling client receives ${person.name}`, async () => {
            const { tracks, errors } = JSON.parse(client.lines.at(-1) ?? '');
            assert.deepEqual(errors, []);
            const theirs = tracks.filter((/** @type {any} */ track) => track.participant_id === person.id);
            for (const { track_id, packets } of theirs) first[track_id] ??= packets;
            return theirs.length === 2 && theirs.every((/** @type {any} */ { track_id, packets }) => packets >= first[track_id] + 10);
          });
        }
      };
      await whole();
      /** @type {number[]} */
      const times = [];
      for (let round = 0; round < KILLS; round += 1) {
        await people[0].page.waitForTimeout(chance.between(0, 2000));
        times.push(...(await killHost(deployment, people)));
        await whole();
      }
      context.diagnostic(`SIGKILL to media decoded again, two Chromiums, ${KILLS} rounds: ${times.map(Math.round).join(', ')} ms`);
      assert.ok(Math.max(...times) < RECOVERY_LIMIT_MS, `${times} ms`);
      const { participants } = await deployment.backend('GET', `/v1/sessions/${room.id}`);
      assert.equal(participants.length, 3, 'no ghost');
    } finally {
      await client.stop();
    }
  });
});
