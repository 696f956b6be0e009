/**
 * What is wanted of each publication, and what of that each endpoint was told. It outlives endpoints: after a rejoin the
 * new one is told as soon as it subscribes.
 *
 * What was set by hand wins over what is seen of the picture (`visibility.js`).
 */

/** @typedef {import('./publication.js').Publication} Publication */
/** @typedef {import('./types.js').Quality} Quality */

/** What is seen of a picture: its size, or that it is not seen. @typedef {{ width: number, height: number } | 'hidden'} Seen */

/** What an endpoint knows of one track. @typedef {{ told: string, telling: Promise<void> | null }} Told */

const NOTHING = JSON.stringify({});

export class Wishes {
  /** @type {WeakMap<Publication, Quality>} */
  #byHand = new WeakMap();
  /** @type {WeakMap<Publication, Seen>} */
  #seen = new WeakMap();
  /** By track id: under another one it is another track to the server. @type {WeakMap<object, Map<string, Told>>} */
  #told = new WeakMap();

  /** @param {Publication} publication @param {Quality} quality everything that is wanted */
  setByHand(publication, quality) {
    this.#byHand.set(publication, quality);
  }

  /** @param {Publication} publication @param {Seen | null} seen null: nobody watches how it is shown any more */
  setSeen(publication, seen) {
    if (seen) this.#seen.set(publication, seen);
    else this.#seen.delete(publication);
  }

  /** @param {Publication} publication @returns {Quality} */
  of(publication) {
    const seen = this.#seen.get(publication);
    /** @type {Quality} */
    const automatic = seen === 'hidden' ? { paused: true } : seen ? { shown: seen } : {};
    return { ...automatic, ...this.#byHand.get(publication) };
  }

  /**
   * Tells an endpoint what is wanted, if it does not know. One request at a time: they must not overtake each other.
   * @param {{ api: { setQuality(trackId: string, quality: Quality): Promise<void> } }} endpoint
   * @param {Publication} publication
   * @returns {Promise<void>} once the server knows the newest
   */
  tell(endpoint, publication) {
    const { id } = publication;
    const known = this.#told.get(endpoint) ?? new Map();
    this.#told.set(endpoint, known);
    /** @type {Told} */
    const entry = known.get(id) ?? { told: NOTHING, telling: null };
    known.set(id, entry);
    const send = async () => {
      for (let text = ''; (text = JSON.stringify(this.of(publication))) !== entry.told; entry.told = text) {
        await endpoint.api.setQuality(id, JSON.parse(text));
      }
    };
    entry.telling ??= send().finally(() => {
      entry.telling = null;
    });
    return entry.telling;
  }
}
