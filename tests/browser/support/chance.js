/** Chance that can be replayed: SWITCHYARD_FAULTS_SEED decides when things break, as in tests/support/src/seed.rs. */

export class Chance {
  #state;

  /** @param {(text: string) => void} say which seed it is */
  constructor(say) {
    this.#state = Number(process.env.SWITCHYARD_FAULTS_SEED ?? Math.floor(Math.random() * 2 ** 31)) >>> 0;
    say(`SWITCHYARD_FAULTS_SEED=${this.#state}`);
  }

  /** Milliseconds (mulberry32). @param {number} from @param {number} to */
  between(from, to) {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return from + (((z ^ (z >>> 14)) >>> 0) / 2 ** 32) * (to - from);
  }
}
