/** Plays what is heard: one audio element per publication, outside the tiles so that layout never stops it. */

/** A successor that has not begun by then is taken as it is. Milliseconds. */
const PATIENCE_MS = 400;

/** @typedef {import('../sdk/switchyard.js').Publication} Publication */

export class Sound {
  /** @type {Map<Publication, HTMLAudioElement>} */
  #elements = new Map();
  #blocked;
  #resume = () => this.#playAll();

  /** @param {() => void} blocked the browser wants a click first; called once per silence */
  constructor(blocked) {
    this.#blocked = blocked;
  }

  /** @param {Publication} publication @param {MediaStreamTrack} track */
  play(publication, track) {
    this.stop(publication);
    const element = elementOf(track);
    this.#elements.set(publication, element);
    element.play().catch((error) => {
      if (error instanceof DOMException && error.name === 'NotAllowedError') {
        addEventListener('pointerdown', this.#resume, { once: true });
        this.#blocked();
      }
    });
  }

  /**
   * The same sound comes as another track: that begins mute and takes over when it plays, so that there is neither a
   * hole nor an echo.
   * @param {Publication} publication @param {MediaStreamTrack} track
   */
  async switchTo(publication, track) {
    const before = this.#elements.get(publication);
    const element = elementOf(track);
    element.muted = true;
    this.#elements.set(publication, element);
    const timeout = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
    await Promise.race([element.play().catch(() => {}), timeout]);
    if (before) before.srcObject = null;
    element.muted = false;
  }

  /** @param {Publication} publication */
  stop(publication) {
    const element = this.#elements.get(publication);
    if (element) element.srcObject = null;
    this.#elements.delete(publication);
  }

  stopAll() {
    removeEventListener('pointerdown', this.#resume);
    for (const publication of [...this.#elements.keys()]) this.stop(publication);
  }

  #playAll() {
    for (const element of this.#elements.values()) element.play().catch(() => {});
  }
}

/** @param {MediaStreamTrack} track */
function elementOf(track) {
  const element = new Audio();
  element.srcObject = new MediaStream([track]);
  return element;
}
