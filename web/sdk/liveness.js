/**
 * Notices that a connection has fallen silent, long before ICE says `disconnected` (which takes a browser
 * five seconds and more). Pure: time comes in as an argument.
 *
 * How often something arrives depends on the room: audio comes 50 times a second, feedback about what we
 * send ten times, and a connection without any media only answers an ICE check every few seconds (RFC 7675). So
 * silence is measured against what was usual just before.
 */

/** No shorter silence is worth a question. Milliseconds. */
const LEAST_SILENCE_MS = 1000;
/** Longer silence always is. Milliseconds. */
const MOST_SILENCE_MS = 8000;
/** Nor is one that is shorter than so many of the longest recent pauses. */
const PAUSES = 3;
/** What counts as recent. Milliseconds. */
const RECENT_MS = 10_000;
/** Arrivals before anything can be called usual. */
const ENOUGH = 4;
/** An observer that was away for so long (a sleeping computer, a frozen page) has seen nothing. Milliseconds. */
const BLACKOUT_MS = 1200;
/** Something that came this long ago means that it still comes. Milliseconds. */
const FLOWING_MS = 500;

export class Liveness {
  /** Pauses between arrivals, oldest first. @type {{ at: number, length: number }[]} */
  #pauses = [];
  #arrivals = 0;
  #lastArrival = -Infinity;
  #lastLook = -Infinity;

  /**
   * To be called several times a second.
   * @param {number} now milliseconds
   * @param {boolean} arrived whether anything came from the server since the last call
   */
  observe(now, arrived) {
    // What happened in the dark is not silence.
    if (now - this.#lastLook > BLACKOUT_MS) this.#lastArrival = now;
    this.#lastLook = now;
    if (!arrived) return;
    this.#arrivals += 1;
    this.#pauses.push({ at: now, length: now - this.#lastArrival });
    while (this.#pauses[0].at < now - RECENT_MS) this.#pauses.shift();
    this.#lastArrival = now;
  }

  /** Whether it has been silent for longer than is usual here. @param {number} now */
  isSilent(now) {
    if (this.#arrivals < ENOUGH) return false;
    const longest = Math.max(0, ...this.#pauses.map(({ length }) => length));
    return now - this.#lastArrival > Math.min(MOST_SILENCE_MS, Math.max(LEAST_SILENCE_MS, PAUSES * longest));
  }

  /** Whether something came just now. @param {number} now */
  isFlowing(now) {
    return this.#arrivals >= ENOUGH && now - this.#lastArrival < FLOWING_MS;
  }
}
