/**
 * Events come at least once: after a reconnect, or from another API instance, the last ones come again.
 */

/** More than the server sends in one poll, so a whole repeated batch is recognised. */
const REMEMBERED = 1024;

export class Inbox {
  /** In order of arrival, oldest first. @type {Set<string>} */
  #seen = new Set();
  #deliver;
  /** @type {string | null} */
  #last = null;

  /** @param {(event: import('../types.js').ServerEvent) => void} deliver */
  constructor(deliver) {
    this.#deliver = deliver;
  }

  /** The newest event that was delivered: what a request confirms. */
  get cursor() {
    return this.#last;
  }

  /**
   * Delivers an event unless it was delivered before.
   * @param {import('../types.js').ServerEvent} event
   * @returns {boolean} whether it was new
   */
  take(event) {
    if (typeof event?.id !== 'string' || typeof event.type !== 'string') return false;
    if (this.#seen.has(event.id)) return false;
    this.#seen.add(event.id);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value ?? '');
    this.#last = event.id;
    this.#deliver(event);
    return true;
  }
}
