import assert from 'node:assert/strict';
import { test } from 'node:test';

import { describeLocally, withVoiceRepair } from '../sdk/voice-repair.js';

const HEAD = 'v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n';
const VOICE = 'm=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=rtpmap:0 PCMU/8000\r\n';
const PICTURE = 'm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n';

test('every voice is asked for again, once, and nothing else is touched', () => {
  const repaired = withVoiceRepair(HEAD + VOICE + PICTURE + VOICE);
  const expected = VOICE.replace('opus/48000/2\r\n', 'opus/48000/2\r\na=rtcp-fb:111 nack\r\n');
  assert.equal(repaired, HEAD + expected + PICTURE + expected);
  assert.equal(withVoiceRepair(repaired), repaired);
  assert.equal(withVoiceRepair(HEAD + PICTURE), HEAD + PICTURE);
});

test('a browser that refuses it goes on without', async () => {
  /** @type {string[]} */
  const tried = [];
  const peer = /** @type {any} */ ({
    signalingState: 'have-remote-offer',
    createAnswer: async () => ({ type: 'answer', sdp: HEAD + VOICE }),
    /** @param {{ sdp: string }} description */
    setLocalDescription: async ({ sdp }) => {
      tried.push(sdp);
      if (sdp.includes('nack')) throw new Error('InvalidModificationError');
    },
  });
  await describeLocally(peer);
  assert.deepEqual(tried, [withVoiceRepair(HEAD + VOICE), HEAD + VOICE]);
});
