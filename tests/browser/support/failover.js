/** Rounds of what a cluster must bear: its media servers killed, or restarted one after the other, under a live room. */

import assert from 'node:assert/strict';
import { eventually } from './eventually.js';
import { awaitRecovery, readGapMeter, startGapMeter } from './meters.js';

/** @typedef {import('./deployment.js').Deployment} Deployment */
/** @typedef {import('./person.js').Person} Person */

/** How long the SDK keeps the old connection at most, with room to spare. Seconds. */
const DRAIN_PATIENCE = 60;

/** The one worker that all of them are connected to. @param {Deployment} deployment @param {Person[]} people */
export async function hostOf(deployment, people) {
  return eventually('all are on one media server', async () => {
    const ports = await Promise.all(people.map((person) => person.mediaPort()));
    if (ports.some((port) => port === undefined || port !== ports[0])) throw new Error(`on ports ${ports}`);
    return deployment.workerAt(ports[0]);
  });
}

/**
 * Kills the worker that hosts these people's room with SIGKILL. Another one has to be there; a new one is started
 * afterwards.
 * @param {Deployment} deployment @param {Person[]} people
 * @returns {Promise<number[]>} milliseconds from the kill until each of them sees and hears all the others again
 */
export async function killHost(deployment, people) {
  const host = await hostOf(deployment, people);
  const at = await host.crash();
  const recovered = await Promise.all(people.map((person) => awaitRecovery(person, at, people.length - 1)));
  await deployment.startWorker();
  return recovered.map((moment) => moment - at);
}

/**
 * Restarts every worker, as an orderly update does: SIGTERM, wait for its end, start its successor, the next one.
 * @param {Deployment} deployment @param {Person[]} people with meters
 * @returns {Promise<{ gaps: number[], concealed: number, seconds: number }>} the longest gap in what each of them heard
 *   of any of the others, and the most that any had made up for one of them (meters.js), in milliseconds
 */
export async function restartAll(deployment, people) {
  const started = performance.now();
  for (const person of people) await startGapMeter(person, people.length - 1);
  const first = await hostOf(deployment, people);
  const rest = deployment.workers.filter((worker) => worker.ended === undefined && worker !== first);
  for (const worker of [first, ...rest]) {
    const code = await worker.drain(DRAIN_PATIENCE);
    assert.equal(code, '0', `${worker.name} ends in order; see ${worker.log}`);
    await deployment.startWorker();
    await hostOf(deployment, people);
  }
  const readings = await Promise.all(people.map(readGapMeter));
  for (const { heard } of readings) assert.equal(heard, people.length - 1, 'the meter heard everyone');
  return {
    gaps: readings.map(({ gap }) => gap),
    concealed: Math.max(...readings.map(({ concealed }) => concealed)),
    seconds: (performance.now() - started) / 1000,
  };
}
