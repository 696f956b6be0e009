/**
 * A WHIP publisher on libdatachannel, the WebRTC library of OBS, used as OBS uses it: one offer as soon as it is made, whatever
 * candidates it has by then, audio before video, no trickle, and the connection closed before the resource is deleted.
 *
 *     libdatachannel.js publish URL TOKEN COLOUR HERTZ     a picture of that colour and that tone; H.264 and Opus
 *
 * INTEROP_PYTHON runs encoder.py.
 */

import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import datachannel from 'node-datachannel';

const AUDIO = { mid: '0', payload: 111, clock: 48_000 };
const VIDEO = { mid: '1', payload: 96, clock: 90_000 };
const FRAGMENT_BYTES = 1200;
/** Kind, time in microseconds, length. */
const HEAD_BYTES = 1 + 8 + 4;

const [, , , url, token, colour, hertz] = process.argv;
const bearer = { Authorization: `Bearer ${token}`, 'User-Agent': 'Mozilla/5.0 (OBS-Studio/31.0.0; Linux x86_64; en-US)' };
const connection = new datachannel.PeerConnection('publisher', { iceServers: [] });
connection.onStateChange((state) => console.log(JSON.stringify({ state })));

/** A line of the offer whose track puts encoded frames into packets. */
function track(kind, make, description) {
  const ssrc = randomInt(1, 2 ** 31);
  description.addSSRC(ssrc, 'cname', 'stream', `stream-${kind.mid}`);
  const timing = new datachannel.RtpPacketizationConfig(ssrc, 'cname', kind.payload, kind.clock);
  const packetizer = make(timing);
  packetizer.addToChain(new datachannel.RtcpSrReporter(timing));
  packetizer.addToChain(new datachannel.RtcpNackResponder());
  const made = connection.addTrack(description);
  made.setMediaHandler(packetizer);
  const began = timing.timestamp;
  return (/** @type {bigint} */ microseconds, /** @type {Buffer} */ frame) => {
    if (!made.isOpen()) return;
    timing.timestamp = Number(BigInt.asUintN(32, BigInt(began) + (microseconds * BigInt(kind.clock)) / 1_000_000n));
    made.sendMessageBinary(frame);
  };
}

const voice = new datachannel.Audio(AUDIO.mid, 'SendOnly');
voice.addOpusCodec(AUDIO.payload);
const picture = new datachannel.Video(VIDEO.mid, 'SendOnly');
picture.addH264Codec(VIDEO.payload);
const send = {
  a: track(AUDIO, (timing) => new datachannel.RtpPacketizer(timing), voice),
  v: track(VIDEO, (timing) => new datachannel.H264RtpPacketizer('StartSequence', timing, FRAGMENT_BYTES), picture),
};
connection.setLocalDescription();
const offer = connection.localDescription().sdp;
const answer = await fetch(url, { method: 'POST', headers: { ...bearer, 'Content-Type': 'application/sdp' }, body: offer });
if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
const resource = new URL(answer.headers.get('Location'), url);
connection.setRemoteDescription(await answer.text(), 'answer');

const encoder = spawn(process.env.INTEROP_PYTHON, [fileURLToPath(new URL('encoder.py', import.meta.url)), colour, hertz], {
  stdio: ['pipe', 'pipe', 'inherit'],
});
let waiting = Buffer.alloc(0);
encoder.stdout.on('data', (/** @type {Buffer} */ bytes) => {
  waiting = Buffer.concat([waiting, bytes]);
  while (waiting.length >= HEAD_BYTES) {
    const end = HEAD_BYTES + waiting.readUInt32BE(9);
    if (waiting.length < end) break;
    send[String.fromCharCode(waiting[0])](waiting.readBigInt64BE(1), waiting.subarray(HEAD_BYTES, end));
    waiting = waiting.subarray(end);
  }
});

process.stdin.resume();
process.stdin.on('end', async () => {
  encoder.stdin.end();
  connection.close();
  const deleted = await fetch(resource, { method: 'DELETE', headers: bearer });
  console.log(JSON.stringify({ deleted: deleted.status }));
  datachannel.cleanup();
  process.exit(deleted.status === 200 ? 0 : 1);
});
