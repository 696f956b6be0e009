/** The line that says how the connection is, when there is something to say. */

import { byId } from './dom.js';

/** @type {Record<import('../sdk/types.js').InterruptionCause, string>} */
const INTERRUPTIONS = {
  connection_lost: 'Connection lost. Reconnecting…',
  media_server_lost: 'The media server stopped. Moving the room to another one…',
};
/** Why it could not be repaired, where the code says more than that it could not. @type {Record<string, string>} */
const FAILURES = {
  unavailable: 'Could not reconnect: no media server takes the room at the moment.',
  expired: 'Could not reconnect: no media server takes the room at the moment.',
  network: 'Could not reconnect: the server cannot be reached. Check your connection.',
  timeout: 'Could not reconnect: the server does not answer.',
};
/** A connection that takes no longer is not worth a line. Milliseconds. */
const CONNECTING_PATIENCE_MS = 1200;

/**
 * @param {import('../sdk/types.js').ConnectionState} state
 * @param {import('../sdk/types.js').InterruptionCause} cause
 * @param {string} code of the error that made the SDK give up
 */
export function textOf(state, cause, code) {
  if (state === 'connecting') return 'Connecting…';
  if (state === 'reconnecting') return INTERRUPTIONS[cause];
  if (state !== 'disconnected') return '';
  return `${FAILURES[code] ?? 'Could not reconnect.'} Nobody sees or hears you now.`;
}

export class Banner {
  #element = /** @type {HTMLElement} */ (document.querySelector('[data-testid=banner]'));
  #text = byId('banner-text', HTMLElement);
  #button = byId('reconnect', HTMLButtonElement);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {import('../sdk/types.js').InterruptionCause} */
  #cause = 'connection_lost';
  #code = '';

  /** @param {() => void} reconnect */
  constructor(reconnect) {
    this.#button.onclick = reconnect;
  }

  /** @param {import('../sdk/types.js').ConnectionState} state */
  show(state) {
    clearTimeout(this.#timer);
    this.#element.dataset.state = state;
    if (state === 'connected') this.#cause = 'connection_lost';
    if (state === 'connecting') {
      this.#timer = setTimeout(() => this.#draw(state), CONNECTING_PATIENCE_MS);
      this.#element.hidden = true;
    } else {
      this.#draw(state);
    }
  }

  /** Why it is as it is; for the state that is shown now or next. @param {import('../sdk/types.js').InterruptionCause} cause */
  explain(cause) {
    this.#cause = cause;
    if (this.#element.dataset.state === 'reconnecting') this.#draw('reconnecting');
  }

  /** The SDK gave up. @param {string} code */
  fail(code) {
    this.#code = code;
    this.#draw('disconnected');
    // Whoever has only a keyboard is at the way out; whoever is typing stays where they are.
    if (!document.activeElement?.matches('input, select, textarea')) this.#button.focus();
  }

  hide() {
    clearTimeout(this.#timer);
    this.#element.hidden = true;
  }

  /** @param {import('../sdk/types.js').ConnectionState} state */
  #draw(state) {
    const text = textOf(state, this.#cause, this.#code);
    this.#element.setAttribute('role', state === 'disconnected' ? 'alert' : 'status');
    this.#element.hidden = text === '';
    if (this.#text.textContent !== text) this.#text.textContent = text;
    this.#button.hidden = state !== 'disconnected';
  }
}
