/**
 * Lost packets of voices are asked for again. Browsers can, and do when both sides say so (`a=rtcp-fb … nack`, RFC 4585,
 * section 4.2); none says it for audio by itself.
 */

/** @param {string} sdp @returns {string} with every Opus that can be sent or received asked for again */
export function withVoiceRepair(sdp) {
  return sdp
    .split(/(?=^m=)/m)
    .map((section) => {
      const opus = /^a=rtpmap:(\d+) opus\/48000/im.exec(section)?.[1];
      if (!section.startsWith('m=audio') || !opus) return section;
      const says = new RegExp(`^a=rtcp-fb:(${opus}|\\*) nack\\s*$`, 'm');
      if (says.test(section)) return section;
      return section.replace(/^(a=rtpmap:\d+ opus\/48000[^\r\n]*)(\r?\n)/im, `$1$2a=rtcp-fb:${opus} nack$2`);
    })
    .join('');
}

/**
 * `setLocalDescription()` with that in it. A browser that refuses the addition goes on without it.
 * @param {Pick<RTCPeerConnection, 'createOffer' | 'createAnswer' | 'setLocalDescription' | 'signalingState'>} peer
 */
export async function describeLocally(peer) {
  const answers = peer.signalingState === 'have-remote-offer';
  const { type, sdp = '' } = await (answers ? peer.createAnswer() : peer.createOffer());
  try {
    await peer.setLocalDescription({ type, sdp: withVoiceRepair(sdp) });
  } catch (error) {
    if (withVoiceRepair(sdp) === sdp) throw error;
    await peer.setLocalDescription({ type, sdp });
  }
}
