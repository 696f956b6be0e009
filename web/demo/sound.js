/** Plays what is heard: one audio element per track, outside the tiles so that layout never stops it. */

export class Sound {
  /** @type {Map<string, HTMLAudioElement>} */
  #elements = new Map();
  #blocked;
  #resume = () => this.#playAll();

  /** @param {() => void} blocked the browser wants a click first; called once per silence */
  constructor(blocked) {
    this.#blocked = blocked;
  }

  /** @param {string} trackId @param {MediaStreamTrack} track */
  play(trackId, track) {
    this.stop(trackId);
    const element = new Audio();
    element.srcObject = new MediaStream([track]);
    this.#elements.set(trackId, element);
    element.play().catch((error) => {
      if (error instanceof DOMException && error.name === 'NotAllowedError') {
        addEventListener('pointerdown', this.#resume, { once: true });
        this.#blocked();
      }
    });
  }

  /** @param {string} trackId */
  stop(trackId) {
    const element = this.#elements.get(trackId);
    if (element) element.srcObject = null;
    this.#elements.delete(trackId);
  }

  stopAll() {
    removeEventListener('pointerdown', this.#resume);
    for (const id of [...this.#elements.keys()]) this.stop(id);
  }

  #playAll() {
    for (const element of this.#elements.values()) element.play().catch(() => {});
  }
}
