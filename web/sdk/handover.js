/**
 * The second half of a move: the new endpoint has joined, the old ones still play. Publication by publication
 * this hears and sees the media come by the new way before it lets go of the old one:
 *
 * ```text
 *   old  ══════ plays ═══════════╗           ╔═ kept open for who is slower ═╗ closed
 *   new      ── joined, packets ─╚═ promoted ╩═══════════════ plays ═════════╩════════
 * ```
 *
 * Whoever has not moved yet is seen and heard by the old endpoint, and sees and hears us by it.
 */

const LOOK_INTERVAL_MS = 60;
/** So much sound (packets of 20 ms) has come before it is taken from there: what bursts has settled. */
const AUDIO_PACKETS = 6;
const VIDEO_FRAMES = 1;
/** The others may take this much longer to see us at the new place than we took to see them. Milliseconds. */
const LINGER_MS = 2000;

/** @typedef {import('./endpoint.js').Endpoint} Endpoint */

export class Handover {
  #roster;
  #to;
  #from;
  #awaited;
  #until;
  #done;
  #settledAt = Infinity;
  #looking = false;
  #stopped = false;
  /** @type {ReturnType<typeof setInterval>} */
  #timer;

  /**
   * @param {object} options
   * @param {import('./roster.js').Roster} options.roster
   * @param {Endpoint} options.to
   * @param {Set<Endpoint>} options.from live: those that are lost meanwhile are taken out
   * @param {Set<string>} options.awaited live: ids of participants who have yet to move
   * @param {number} options.until `performance.now()` after which the old ones are worth nothing
   * @param {() => void} options.done the old ones can go
   */
  constructor({ roster, to, from, awaited, until, done }) {
    this.#roster = roster;
    this.#to = to;
    this.#from = from;
    this.#awaited = awaited;
    this.#until = until;
    this.#done = done;
    this.#timer = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
  }

  stop() {
    this.#stopped = true;
    clearInterval(this.#timer);
  }

  async #look() {
    if (this.#looking) return;
    this.#looking = true;
    const waiting = this.#roster.waiting(this.#to);
    if (waiting.length > 0) {
      const report = await this.#to.connection.peer.getStats().catch(() => new Map());
      if (this.#stopped) return;
      const inbound = inboundByMid(/** @type {any} */ (report));
      for (const { publication, mid } of waiting) {
        if (publication.muted || carries(inbound.get(mid))) this.#roster.promote(this.#to, publication);
      }
    }
    this.#looking = false;
    const now = performance.now();
    const settled = this.#awaited.size === 0 && [...this.#from].every((old) => !this.#roster.plays(old));
    this.#settledAt = settled ? Math.min(this.#settledAt, now) : Infinity;
    if (now < this.#settledAt + LINGER_MS && now < this.#until) return;
    if (this.#stopped) return;
    this.stop();
    this.#done();
  }
}

/** @param {any} stats of an inbound RTP stream */
export function carries(stats) {
  if (!stats) return false;
  return stats.kind === 'audio' ? stats.packetsReceived >= AUDIO_PACKETS : stats.framesDecoded >= VIDEO_FRAMES;
}

/** @param {Map<string, any>} report @returns {Map<string, any>} */
function inboundByMid(report) {
  const inbound = new Map();
  for (const stats of report.values()) {
    if (stats.type !== 'inbound-rtp') continue;
    // Simulcast and repair may add streams to a line: the busiest is the one that counts.
    const known = inbound.get(stats.mid);
    if (!known || (known.packetsReceived ?? 0) < (stats.packetsReceived ?? 0)) inbound.set(stats.mid, stats);
  }
  return inbound;
}
