/** Audio levels, 0 to 1: of what we hear from each participant, and of our own microphone. */

export class LevelReader {
  /** Media clock of the last packet, by participant: a level that is no longer renewed is silence. */
  /** @type {Map<string, number>} */
  #clocks = new Map();

  /**
   * @param {import('./connection.js').Connection | null} connection that publishes our own
   * @param {Iterable<import('./participant.js').RemoteParticipant>} others
   * @param {import('./local-participant.js').LocalParticipant} local
   * @returns {Promise<Map<string, number>>} by participant id
   */
  async read(connection, others, local) {
    /** @type {Map<string, number>} */
    const levels = new Map();
    for (const participant of others) {
      const microphone = participant.trackBySource('microphone');
      if (!microphone?.receiver || microphone.muted) continue;
      // The header extension of RFC 6464, or the decoded sound where there is none.
      const [source] = microphone.receiver.getSynchronizationSources();
      const live = source && this.#clocks.get(participant.id) !== source.rtpTimestamp;
      levels.set(participant.id, live ? (source.audioLevel ?? 0) : 0);
      if (source) this.#clocks.set(participant.id, source.rtpTimestamp);
    }
    const own = await this.#own(connection, local);
    if (own !== null) levels.set(local.id, own);
    return levels;
  }

  /**
   * @param {import('./connection.js').Connection | null} connection
   * @param {import('./local-participant.js').LocalParticipant} local
   * @returns {Promise<number | null>}
   */
  async #own(connection, local) {
    const microphone = local.trackBySource('microphone');
    const sender = microphone && !microphone.muted ? connection?.senderOf(microphone) : null;
    if (!sender) return null;
    for (const stats of (await sender.getStats()).values()) {
      if (stats.type === 'media-source') return stats.audioLevel ?? 0;
    }
    return null;
  }
}
