import assert from 'node:assert/strict';
import test from 'node:test';

import { describe } from '../demo/stats-overlay.js';
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
  const text = describe([...tracks].reverse(), transport.rttMs);
  assert.equal(
    text,
    '↓ VP8 –\n  1280×720 @ 30 fps\n  loss – %  jitter 3 ms\n↑ audio –\n  loss 25.0 %  jitter 1 ms\nrtt 20 ms',
  );
  assert.equal(describe([], null), 'no media');
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
