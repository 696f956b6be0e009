import assert from 'node:assert/strict';
import test from 'node:test';

import { describe } from '../demo/stats-overlay.js';
import { ActiveSpeakers } from '../sdk/active-speakers.js';
import { backoff } from '../sdk/backoff.js';
import { Speakers } from '../sdk/speakers.js';
import { StatsReader } from '../sdk/stats.js';

/** An RTCStatsReport as Chromium gives it, cut down to what is read. */
function report(at, { bytes, packets, lost }) {
  return [
    ['C1', { id: 'C1', type: 'codec', mimeType: 'video/VP8' }],
    ['T1', { id: 'T1', type: 'transport', selectedCandidatePairId: 'P1', dtlsState: 'connected' }],
    ['P1', { id: 'P1', type: 'candidate-pair', currentRoundTripTime: 0.02, localCandidateId: 'L1', availableOutgoingBitrate: 1e6 }],
    ['L1', { id: 'L1', type: 'local-candidate', protocol: 'udp', candidateType: 'host' }],
    [
      'I1',
      { id: 'I1', type: 'inbound-rtp', kind: 'video', mid: '2', codecId: 'C1', timestamp: at, bytesReceived: bytes, packetsReceived: packets, packetsLost: lost, jitter: 0.003, frameWidth: 1280, frameHeight: 720, framesPerSecond: 30, framesDecoded: 90, freezeCount: 1 },
    ],
    ['O1', { id: 'O1', type: 'outbound-rtp', kind: 'audio', mid: '0', timestamp: at, bytesSent: bytes, packetsSent: packets, remoteId: 'R1' }],
    ['R1', { id: 'R1', type: 'remote-inbound-rtp', localId: 'O1', fractionLost: 0.25, packetsLost: 3, jitter: 0.001, roundTripTime: 0.05 }],
    ['I2', { id: 'I2', type: 'inbound-rtp', kind: 'video', mid: '99', timestamp: at }],
  ];
}

const nameOf = (direction, mid) => (mid === '99' ? null : { trackId: `trk_${direction}`, participantId: 'par_a', source: 'camera' });

test('figures are rates between two readings, per track that is known', () => {
  const reader = new StatsReader();
  const first = reader.read(report(1000, { bytes: 1000, packets: 10, lost: 0 }), nameOf);
  assert.equal(first.tracks[0].bitrateBps, null);
  const { tracks, transport } = reader.read(report(3000, { bytes: 251_000, packets: 100, lost: 10 }), nameOf);
  assert.deepEqual(transport, { rttMs: 20, availableOutgoingBps: 1e6, protocol: 'udp', candidateType: 'host', state: 'connected' });
  assert.equal(tracks.length, 2);
  const [video, audio] = tracks;
  assert.equal(video.trackId, 'trk_in');
  assert.equal(video.codec, 'VP8');
  assert.equal(video.bitrateBps, 1_000_000);
  assert.equal(video.lossPercent, 10);
  assert.equal(video.jitterMs, 3);
  assert.equal(video.rttMs, 20);
  assert.deepEqual([video.width, video.height, video.fps, video.framesDecoded, video.freezes], [1280, 720, 30, 90, 1]);
  assert.equal(audio.trackId, 'trk_out');
  assert.equal(audio.lossPercent, 25);
  assert.equal(audio.rttMs, 50);
  assert.equal(audio.packetsLost, 3);
});

test('an empty report gives no figures and no error', () => {
  const { tracks, transport } = new StatsReader().read([], nameOf);
  assert.deepEqual(tracks, []);
  assert.equal(transport.rttMs, null);
});

test('the overlay shows figures, and dashes where there are none', () => {
  const reader = new StatsReader();
  const { tracks, transport } = reader.read(report(1000, { bytes: 1, packets: 1, lost: 0 }), nameOf);
  const [video, audio] = tracks;
  const lines = (track, server) => describe([track], transport, server).split('\n');
  assert.deepEqual(lines(video, null), [
    '↓ VP8 1280×720 30 fps',
    '  rate     –',
    '  loss     – %, jitter 3 ms',
    '⇄ connection',
    '  rtt      20 ms',
    '  estimate –',
  ]);
  assert.deepEqual(lines(audio, null).slice(1), ['  rate     –', '  loss     25.0 %, jitter 1 ms', '⇄ connection', '  rtt      20 ms', '  estimate 1.00 Mbit/s']);
  const kinds = describe([...tracks].reverse(), transport, null).match(/[↓↑] \S+/g);
  assert.deepEqual(kinds, ['↓ VP8', '↑ audio'], 'the picture comes first');
  assert.equal(describe([], transport, null), 'no media');
});

/** What the server says, as much of it as is shown. */
const server = (subscribed, encodings = []) => ({
  state: 'connected',
  transport: { round_trip_time_ms: 33.4, available_outgoing_bitrate_bps: 2_400_000 },
  published: [{ track_id: 'trk_out', encodings }],
  subscribed: [{ track_id: 'trk_in', bitrate_bps: 1, retransmitted_packets_sent: 0, target: null, ...subscribed }],
});

test('the overlay shows what the server sends us, or why it does not, and what it estimates', () => {
  const [video] = new StatsReader().read(report(1000, { bytes: 1, packets: 1, lost: 0 }), nameOf).tracks;
  const transport = { rttMs: null, availableOutgoingBps: 5e6 };
  const shown = (subscribed) => describe([video], transport, server(subscribed)).split('\n');
  const flowing = shown({ state: 'flowing', current: { encoding: 1, spatial: 0, temporal: 2 } });
  assert.equal(flowing[1], '  layer    1, spatial 0, temporal 2');
  assert.deepEqual(flowing.slice(-2), ['  rtt      33 ms', '  estimate 2.40 Mbit/s'], 'of the way to us');
  assert.equal(shown({ state: 'awaiting_keyframe', current: null })[1], '  layer    awaiting keyframe');
  assert.equal(shown({ track_id: 'trk_other', state: 'flowing', current: null })[1], '  rate     –', 'of another track');
});

test('a camera that is sent in several sizes is one track with the rates of all', () => {
  const size = (width, bitrateBps) => ({
    trackId: 'trk_out', participantId: 'par_a', source: 'camera', direction: 'out', kind: 'video', codec: 'VP8',
    bitrateBps, width, height: width, fps: 15, lossPercent: 0, jitterMs: 1,
  });
  const encodings = [
    { alive: true, bitrate_bps: 120_400 },
    { alive: true, bitrate_bps: 400_000 },
    { alive: false, bitrate_bps: 0 },
  ];
  const transport = { rttMs: 7, availableOutgoingBps: 900_000 };
  const text = describe([size(240, 100_000), size(480, 400_000), size(null, null)], transport, server({ state: 'flowing', current: null }, encodings));
  assert.equal(
    text,
    '↑ VP8 480×480 15 fps\n  layers   120 / 400 / off kbit/s\n  rate     500 kbit/s\n  loss     0.0 %, jitter 1 ms\n⇄ connection\n  rtt      7 ms\n  estimate 900 kbit/s',
  );
});

test('who speaks is the server’s word, and what we hear only while it has said nothing', () => {
  const speakers = new ActiveSpeakers();
  const loud = (...ids) => new Map(ids.map((id) => [id, 0.3]));
  assert.deepEqual(speakers.hear(loud('a'), 0), { speaking: ['a'], changed: true });
  const tell = (...ids) => speakers.tell(ids.map((id) => ({ participant_id: id })));
  assert.deepEqual(tell('b', 'b', 'c'), { speaking: ['b', 'c'], changed: true }, 'two microphones are one person');
  assert.equal(speakers.isTold, true);
  assert.deepEqual(speakers.hear(loud('a'), 200), { speaking: ['b', 'c'], changed: false });
  assert.deepEqual(tell('c', 'b'), { speaking: ['c', 'b'], changed: true }, 'another one leads');
  assert.deepEqual(tell(), { speaking: [], changed: true });
  assert.deepEqual(speakers.hear(loud('a'), 400), { speaking: [], changed: false }, 'nobody is its word, too');
  speakers.forget();
  assert.deepEqual(speakers.hear(loud('a'), 600), { speaking: ['a'], changed: true });
});

test('speaking begins with loudness and outlasts the pauses between words', () => {
  const speakers = new Speakers();
  const at = (level, now) => speakers.update(new Map([['a', level]]), now);
  assert.deepEqual(at(0.001, 0), { speaking: [], changed: false });
  assert.deepEqual(at(0.2, 200), { speaking: ['a'], changed: true });
  assert.deepEqual(at(0, 400), { speaking: ['a'], changed: false });
  assert.deepEqual(at(0.01, 800), { speaking: ['a'], changed: false }, 'a soft word goes on');
  assert.deepEqual(at(0, 1400), { speaking: ['a'], changed: false });
  assert.deepEqual(at(0, 1600), { speaking: [], changed: true });
  assert.deepEqual(at(0.01, 1800), { speaking: [], changed: false }, 'a soft noise does not begin');
});

test('the loudest comes first, and who is gone or muted is not speaking', () => {
  const speakers = new Speakers();
  const loud = new Map([
    ['a', 0.1],
    ['b', 0.4],
  ]);
  assert.deepEqual(speakers.update(loud, 0).speaking, ['b', 'a']);
  assert.deepEqual(speakers.update(new Map([['a', 0.1]]), 100), { speaking: ['a'], changed: true });
});

test('back-off doubles up to its limit, and is never without jitter', () => {
  const low = { base: 100, limit: 1000, random: () => 0 };
  const high = { ...low, random: () => 1 };
  assert.deepEqual([0, 1, 2, 3, 4, 50].map((attempt) => backoff(attempt, low)), [50, 100, 200, 400, 500, 500]);
  assert.deepEqual([0, 1, 2, 3, 4, 50].map((attempt) => backoff(attempt, high)), [100, 200, 400, 800, 1000, 1000]);
});
