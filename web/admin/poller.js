/** Asks again and again, one request at a time, not while nobody looks, and less often while it fails. */

/** The longest pause between two failed looks. */
const SLOWEST_MS = 30_000;

export class Poller {
  #ask;
  #every;
  #timer = 0;
  #failures = 0;
  #stopped = false;
  #busy = false;
  /** Somebody asked meanwhile, perhaps for something else than what is on its way. */
  #again = false;

  /** @param {() => Promise<void>} ask @param {number} every milliseconds between the end of one look and the next */
  constructor(ask, every) {
    this.#ask = ask;
    this.#every = every;
    document.addEventListener('visibilitychange', this.#seen);
    void this.now();
  }

  /** Looks at once. */
  now = async () => {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    try {
      await this.#ask();
      this.#failures = 0;
    } catch {
      // Whoever asked has said so; here it only means to wait longer.
      this.#failures += 1;
    }
    this.#busy = false;
    if (this.#stopped || document.hidden) return;
    if (this.#again) {
      this.#again = false;
      void this.now();
      return;
    }
    const pause = Math.min(this.#every * 2 ** this.#failures, SLOWEST_MS);
    this.#timer = window.setTimeout(this.now, this.#failures === 0 ? this.#every : pause);
  };

  #seen = () => {
    if (!document.hidden) void this.now();
  };

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    document.removeEventListener('visibilitychange', this.#seen);
  }
}
