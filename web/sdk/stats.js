/**
 * Tidy figures per track out of an `RTCStatsReport` (W3C webrtc-stats). Rates are over the time since
 * the reader's last call; the first call has none.
 */

/**
 * @typedef {object} TrackStats
 * @property {string} trackId
 * @property {string} participantId
 * @property {'in' | 'out'} direction
 * @property {import('./types.js').TrackKind} kind
 * @property {import('./types.js').TrackSource} source
 * @property {string | null} codec for example `VP8`
 * @property {number | null} bitrateBps bits per second of media, without headers
 * @property {number | null} width pixels
 * @property {number | null} height pixels
 * @property {number | null} fps frames per second, sent or decoded
 * @property {number | null} lossPercent 0 to 100: inbound as we see it, outbound as the server reports it
 * @property {number | null} jitterMs
 * @property {number | null} rttMs round trip to the server
 * @property {number} packets since the start
 * @property {number} packetsLost since the start; repaired ones are not counted
 * @property {number | null} framesDecoded inbound video, since the start
 * @property {number | null} freezes inbound video, since the start
 * @property {number | null} audioEnergy inbound audio, since the start
 */

/**
 * @typedef {object} RoomStats
 * @property {{ rttMs: number | null, availableOutgoingBps: number | null, protocol: string | null, candidateType: string | null, state: string | null }} transport
 * @property {TrackStats[]} tracks
 */

/** @typedef {{ trackId: string, participantId: string, source: import('./types.js').TrackSource }} TrackName */

export class StatsReader {
  /** @type {Map<string, { at: number, bytes: number, packets: number, lost: number }>} */
  #previous = new Map();

  /**
   * @param {Iterable<[string, any]>} report
   * @param {(direction: 'in' | 'out', mid: string) => TrackName | null} nameOf which track an m-line carries
   * @returns {RoomStats}
   */
  read(report, nameOf) {
    const byId = new Map(report);
    const previous = this.#previous;
    this.#previous = new Map();
    /** @type {TrackStats[]} */
    const tracks = [];
    for (const stats of byId.values()) {
      if (stats.type !== 'inbound-rtp' && stats.type !== 'outbound-rtp') continue;
      const direction = stats.type === 'inbound-rtp' ? 'in' : 'out';
      const name = typeof stats.mid === 'string' ? nameOf(direction, stats.mid) : null;
      if (!name) continue;
      tracks.push({ ...name, direction, kind: stats.kind, ...this.#figures(stats, byId, previous) });
    }
    return { transport: transportOf(byId), tracks };
  }

  /**
   * @param {any} stats
   * @param {Map<string, any>} byId
   * @param {Map<string, { at: number, bytes: number, packets: number, lost: number }>} previous
   */
  #figures(stats, byId, previous) {
    const inbound = stats.type === 'inbound-rtp';
    const remote = byId.get(stats.remoteId) ?? findRemote(byId, stats.id);
    const now = {
      at: stats.timestamp,
      bytes: (inbound ? stats.bytesReceived : stats.bytesSent) ?? 0,
      packets: (inbound ? stats.packetsReceived : stats.packetsSent) ?? 0,
      lost: (inbound ? stats.packetsLost : remote?.packetsLost) ?? 0,
    };
    this.#previous.set(stats.id, now);
    const before = previous.get(stats.id);
    const seconds = before ? (now.at - before.at) / 1000 : 0;
    return {
      codec: byId.get(stats.codecId)?.mimeType?.split('/')[1] ?? null,
      bitrateBps: before && seconds > 0 ? Math.max(0, ((now.bytes - before.bytes) * 8) / seconds) : null,
      width: stats.frameWidth ?? null,
      height: stats.frameHeight ?? null,
      fps: stats.framesPerSecond ?? null,
      lossPercent: inbound ? lossBetween(before, now) : percent(remote?.fractionLost),
      jitterMs: milliseconds(inbound ? stats.jitter : remote?.jitter),
      rttMs: milliseconds(remote?.roundTripTime) ?? transportOf(byId).rttMs,
      packets: now.packets,
      packetsLost: now.lost,
      framesDecoded: stats.framesDecoded ?? null,
      freezes: stats.freezeCount ?? null,
      audioEnergy: stats.totalAudioEnergy ?? null,
    };
  }
}

/** @param {Map<string, any>} byId @param {string} localId */
function findRemote(byId, localId) {
  for (const stats of byId.values()) {
    if (stats.type === 'remote-inbound-rtp' && stats.localId === localId) return stats;
  }
  return undefined;
}

/**
 * @param {{ packets: number, lost: number } | undefined} before
 * @param {{ packets: number, lost: number }} now
 */
function lossBetween(before, now) {
  if (!before) return null;
  const lost = Math.max(0, now.lost - before.lost);
  const expected = now.packets - before.packets + lost;
  return expected > 0 ? (lost / expected) * 100 : 0;
}

/** @param {number | undefined} fraction */
function percent(fraction) {
  return fraction === undefined ? null : fraction * 100;
}

/** @param {number | undefined} seconds */
function milliseconds(seconds) {
  return seconds === undefined ? null : seconds * 1000;
}

/**
 * @param {Map<string, any>} byId
 * @returns {RoomStats['transport']}
 */
function transportOf(byId) {
  const all = [...byId.values()];
  const transport = all.find((stats) => stats.type === 'transport');
  const pair =
    byId.get(transport?.selectedCandidatePairId) ??
    all.find((stats) => stats.type === 'candidate-pair' && stats.nominated && stats.state === 'succeeded');
  const local = byId.get(pair?.localCandidateId);
  return {
    rttMs: milliseconds(pair?.currentRoundTripTime),
    availableOutgoingBps: pair?.availableOutgoingBitrate ?? null,
    protocol: local?.protocol ?? null,
    candidateType: local?.candidateType ?? null,
    state: transport?.dtlsState ?? null,
  };
}
