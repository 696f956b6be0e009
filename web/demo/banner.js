/** The line that says how the connection is, when there is something to say. */

import { byId } from './dom.js';

/** @type {Record<string, string>} */
const TEXTS = {
  connecting: 'Connecting…',
  connected: '',
  reconnecting: 'Connection lost. Reconnecting…',
  disconnected: 'Could not reconnect.',
  closed: '',
};
/** A connection that takes no longer is not worth a line. Milliseconds. */
const CONNECTING_PATIENCE_MS = 1200;

export class Banner {
  #element = /** @type {HTMLElement} */ (document.querySelector('[data-testid=banner]'));
  #text = byId('banner-text', HTMLElement);
  #button = byId('reconnect', HTMLButtonElement);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {() => void} reconnect */
  constructor(reconnect) {
    this.#button.onclick = reconnect;
  }

  /** @param {import('../sdk/types.js').ConnectionState} state */
  show(state) {
    clearTimeout(this.#timer);
    this.#element.dataset.state = state;
    if (state === 'connecting') {
      this.#timer = setTimeout(() => this.#draw(state), CONNECTING_PATIENCE_MS);
      this.#element.hidden = true;
    } else {
      this.#draw(state);
    }
  }

  hide() {
    clearTimeout(this.#timer);
    this.#element.hidden = true;
  }

  /** @param {import('../sdk/types.js').ConnectionState} state */
  #draw(state) {
    this.#text.textContent = TEXTS[state];
    this.#element.hidden = TEXTS[state] === '';
    this.#button.hidden = state !== 'disconnected';
  }
}
