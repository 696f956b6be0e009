/**
 * How long a player that is there waits for a publisher's first picture, both real browsers by WHIP and WHEP alone: from the
 * publisher's offer being made to the first decoded frame. Run by bench/whip-latency on a release build.
 */

import { Deployment } from './support/deployment.js';
import { launch } from './support/person.js';

const ROUNDS = 20;

/** In the page: one round, in milliseconds. @param {{ session: string, token: string }} room */
async function measure({ session, token }) {
  const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/sdp' };
  /** One request is all that it takes: the answer has the server's candidates. @param {RTCPeerConnection} connection @param {string} by */
  const connect = async (connection, by) => {
    await connection.setLocalDescription();
    const reply = await fetch(`/v1/${by}/${session}`, { method: 'POST', headers, body: connection.localDescription?.sdp });
    if (reply.status !== 201) throw new Error(`${by}: ${reply.status} ${await reply.text()}`);
    await connection.setRemoteDescription({ type: 'answer', sdp: await reply.text() });
    return new URL(reply.headers.get('location') ?? '', location.href);
  };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
  const player = new RTCPeerConnection();
  const picture = player.addTransceiver('video', { direction: 'recvonly' }).receiver.track;
  player.addTransceiver('audio', { direction: 'recvonly' });
  const there = new Promise((resolve) => {
    player.onconnectionstatechange = () => player.connectionState === 'connected' && resolve(undefined);
  });
  const resources = [await connect(player, 'whep')];
  await there;
  const reader = new MediaStreamTrackProcessor({ track: /** @type {MediaStreamVideoTrack} */ (picture) }).readable.getReader();

  const publisher = new RTCPeerConnection();
  for (const track of stream.getTracks()) publisher.addTransceiver(track, { direction: 'sendonly' });
  const started = performance.now();
  const published = connect(publisher, 'whip');
  const { value: frame } = await reader.read();
  const first = performance.now() - started;
  frame?.close();
  await reader.cancel();
  resources.push(await published);
  for (const resource of resources) await fetch(resource, { method: 'DELETE', headers });
  for (const connection of [player, publisher]) connection.close();
  for (const track of stream.getTracks()) track.stop();
  return first;
}

const [browser, deployment] = await Promise.all([launch({ fps: 30 }), Deployment.start('embedded')]);
try {
  const context = await browser.newContext();
  const page = await context.newPage();
  // Any document of this origin will do.
  await page.goto(`${deployment.url}/sdk/switchyard.js`);
  const times = [];
  // The first one warms the browser up and is not counted.
  for (let round = 0; round <= ROUNDS; round += 1) {
    const { id, token } = await deployment.room();
    const time = await page.evaluate(measure, { session: id, token });
    if (round > 0) times.push(Math.round(time));
  }
  times.sort((a, b) => a - b);
  console.log(
    `WHIP publish to WHEP first decoded frame in Chromium, ${ROUNDS} times: median ${times[ROUNDS / 2]} ms, p90 ${times[ROUNDS * 0.9]} ms, worst ${times[ROUNDS - 1]} ms`,
  );
} finally {
  await browser.close();
  await deployment.stop();
}
