/**
 * How long joining takes, as a person feels it: from `Room.join` (devices open, the page loaded) to the first decoded
 * frame of someone who is there already. And how long the process takes from its start to serving. Run by
 * bench/join-latency on a release build.
 */

import { binary, Process } from './support/process.js';
import { Deployment } from './support/deployment.js';
import { launch, Person } from './support/person.js';

const JOINS = 20;
const STARTS = 10;

/** @param {number[]} values @param {number} part 0.5 for the median */
function percentile(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * part;
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return low + (high - low) * (at - Math.floor(at));
}

/** @param {string} what @param {number[]} values milliseconds */
function report(what, values) {
  const [median, p90] = [percentile(values, 0.5), percentile(values, 0.9)];
  const [least, most] = [Math.min(...values), Math.max(...values)];
  console.log(
    `${what}: median ${median.toFixed(0)} ms, p90 ${p90.toFixed(0)} ms (${values.length} times, ${least.toFixed(0)} to ${most.toFixed(0)})`,
  );
}

/** In the page: joins, waits for the first frame, leaves. Gives milliseconds. @param {string} link */
async function measure(link) {
  const { Room } = await import('/sdk/switchyard.js');
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 480 } });
  const tracks = stream.getTracks().map((track) => ({ track }));
  const started = performance.now();
  const room = await Room.join(link, { name: 'measured', tracks });
  const joined = performance.now();
  const video = await new Promise((resolve) => {
    const found = [...room.participants.values()].flatMap((participant) => [...participant.tracks.values()]);
    const there = found.find(({ track, kind }) => track && kind === 'video');
    if (there) resolve(there.track);
    room.on('trackSubscribed', (/** @type {MediaStreamTrack} */ track) => {
      if (track.kind === 'video') resolve(track);
    });
  });
  const subscribed = performance.now();
  const reader = new MediaStreamTrackProcessor({ track: video }).readable.getReader();
  const { value: frame } = await reader.read();
  const first = performance.now();
  frame?.close();
  await reader.cancel();
  await room.leave();
  for (const track of stream.getTracks()) track.stop();
  return { joined: joined - started, subscribed: subscribed - started, first: first - started };
}

async function startTimes() {
  const times = [];
  for (let start = 0; start < STARTS; start += 1) {
    const started = performance.now();
    const process = new Process('start', binary(), ['--listen', '127.0.0.1:0', '--media-port', '0']);
    const url = (await process.line('switchyard: listening on ')).replace(/\/$/, '');
    const response = await fetch(`${url}/healthz`);
    if (!response.ok) throw new Error(`/healthz: ${response.status}`);
    times.push(performance.now() - started);
    await process.stop();
  }
  return times;
}

report('process start to serving', await startTimes());
for (const shape of /** @type {const} */ (['embedded', 'cluster'])) {
  const browser = await launch();
  const deployment = await Deployment.start(shape);
  try {
    const room = await deployment.room();
    const there = await (await Person.open(browser, 'Ada')).join(room.address);
    const context = await browser.newContext();
    const results = [];
    // The first one warms the browser up and is not counted.
    for (let join = 0; join <= JOINS; join += 1) {
      const page = await context.newPage();
      // Any document of this origin will do; this one brings no demo along.
      await page.goto(`${deployment.url}/sdk/switchyard.js`);
      const result = await page.evaluate(measure, `${deployment.url}/#session=${room.id}&token=${room.token}`);
      if (join > 0) results.push(result);
      await page.close();
    }
    report(`${shape}: join to joined`, results.map(({ joined }) => joined));
    report(`${shape}: join to subscribed`, results.map(({ subscribed }) => subscribed));
    report(`${shape}: join to first decoded frame`, results.map(({ first }) => first));
    if (there.complaints.length > 0) throw new Error(there.complaints.join('\n'));
  } finally {
    await browser.close();
    await deployment.stop();
  }
}
