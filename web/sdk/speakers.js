/**
 * Who is speaking, from audio levels. Loudness alone flickers with every syllable, so a level must be
 * passed for a moment to begin, and silence must last longer to end it.
 */

/** Linear level, 0 to 1 (RFC 6464 levels as browsers give them): about −34 dBov to begin, −42 to go on. */
const BEGIN_LEVEL = 0.02;
const KEEP_LEVEL = 0.008;
/** Silence inside a sentence. Milliseconds. */
const HOLD_MS = 700;
/** How fast the shown level follows. */
const SMOOTHING = 0.5;

export class Speakers {
  /** @type {Map<string, { level: number, lastLoud: number, speaking: boolean }>} */
  #state = new Map();

  /**
   * Takes the levels of all who have a live, unmuted microphone; who is not in it is silent and forgotten.
   * @param {Map<string, number>} levels by participant id, 0 to 1
   * @param {number} now milliseconds
   * @returns {{ speaking: string[], changed: boolean }} participant ids, loudest first
   */
  update(levels, now) {
    const before = this.#speaking();
    for (const id of [...this.#state.keys()]) if (!levels.has(id)) this.#state.delete(id);
    for (const [id, level] of levels) {
      const state = this.#state.get(id) ?? { level: 0, lastLoud: -Infinity, speaking: false };
      state.level += (level - state.level) * SMOOTHING;
      if (level >= (state.speaking ? KEEP_LEVEL : BEGIN_LEVEL)) {
        state.speaking = true;
        state.lastLoud = now;
      } else if (now - state.lastLoud > HOLD_MS) {
        state.speaking = false;
      }
      this.#state.set(id, state);
    }
    const speaking = this.#speaking();
    const changed = before.length !== speaking.length || before.some((id) => !speaking.includes(id));
    return { speaking, changed };
  }

  #speaking() {
    return [...this.#state]
      .filter(([, state]) => state.speaking)
      .sort(([, a], [, b]) => b.level - a.level)
      .map(([id]) => id);
  }
}
