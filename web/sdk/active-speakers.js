/**
 * Who speaks, as the room shows it: by the server's word, which hears everybody and tells all clients the same. While it
 * has said nothing since we joined (nobody has spoken yet, or no client sends its level), by what we hear ourselves.
 */

import { Speakers } from './speakers.js';

export class ActiveSpeakers {
  #heard = new Speakers();
  /** The server's last list; null while there is none. @type {string[] | null} */
  #told = null;
  /** @type {string[]} */
  #shown = [];

  /** Whether the server has told who speaks: what we hear is of no interest then. */
  get isTold() {
    return this.#told !== null;
  }

  /**
   * The event `speakers.changed`.
   * @param {{ participant_id: string }[]} speakers who leads first
   * @returns {{ speaking: string[], changed: boolean }} participant ids
   */
  tell(speakers) {
    this.#told = [...new Set(speakers.map(({ participant_id: id }) => id))];
    return this.#show(this.#told, true);
  }

  /**
   * What we hear; see `Speakers.update`.
   * @param {Map<string, number>} levels
   * @param {number} now milliseconds
   * @returns {{ speaking: string[], changed: boolean }} participant ids, loudest first
   */
  hear(levels, now) {
    const { speaking } = this.#heard.update(levels, now);
    return this.#show(this.#told ?? speaking, false);
  }

  /** Another media server, which begins anew. */
  forget() {
    this.#told = null;
  }

  /**
   * @param {string[]} speaking
   * @param {boolean} inOrder another order is a change: by loudness alone it flickers
   */
  #show(speaking, inOrder) {
    const before = this.#shown;
    const stays = (/** @type {string} */ id, /** @type {number} */ index) => (inOrder ? before[index] === id : before.includes(id));
    const changed = speaking.length !== before.length || !speaking.every(stays);
    this.#shown = speaking;
    return { speaking, changed };
  }
}
