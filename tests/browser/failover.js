/**
 * What the loss and the restart of media servers cost three people in a room, many times over. Run by bench/failover on a
 * release build: `node failover.js ROUNDS`. What is measured is said in support/meters.js and support/failover.js.
 */

import { Deployment } from './support/deployment.js';
import { killHost, restartAll } from './support/failover.js';
import { installMeters, METERED } from './support/meters.js';
import { allSeeAndHear, launch, Person } from './support/person.js';

const ROUNDS = Number(process.argv[2] ?? 20);
const NAMES = ['Ada', 'Ben', 'Eve'];

/** @param {string} what @param {number[]} values milliseconds */
function report(what, values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
  console.log(`${what}: median ${middle.toFixed(0)} ms, worst ${(sorted.at(-1) ?? NaN).toFixed(0)} ms (${values.length} rounds: ${values.map((value) => value.toFixed(0)).join(' ')})`);
}

/** @param {(deployment: Deployment, people: Person[]) => Promise<void>} body */
async function inRoom(body) {
  const browser = await launch();
  const deployment = await Deployment.start('cluster');
  try {
    const { address } = await deployment.room();
    const people = [];
    for (const name of NAMES) {
      const person = await Person.open(browser, name, METERED);
      await installMeters(person);
      people.push(await person.join(address));
    }
    await allSeeAndHear(people);
    await body(deployment, people);
  } finally {
    await browser.close();
    await deployment.stop();
  }
}

await inRoom(async (deployment, people) => {
  const slowest = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    slowest.push(Math.max(...(await killHost(deployment, people))));
    await allSeeAndHear(people);
  }
  report('SIGKILL of the hosting worker to media decoded again at the last of three', slowest);
});

await inRoom(async (deployment, people) => {
  const gaps = [];
  let concealed = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const result = await restartAll(deployment, people);
    gaps.push(Math.max(...result.gaps));
    concealed = Math.max(concealed, result.concealed);
    await allSeeAndHear(people);
  }
  report('rolling restart of both workers, longest gap in what any of three heard', gaps);
  console.log(`concealed at most, of one participant: ${concealed.toFixed(0)} ms`);
});
