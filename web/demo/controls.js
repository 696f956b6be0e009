/** The dock: microphone, camera, screen, chat, figures, link, leave; by pointer and by key. */

import { byId, icon, make } from './dom.js';

/**
 * @typedef {object} Control
 * @property {string} id of the button
 * @property {string} key
 * @property {() => { label: string, icon: string, pressed?: boolean, off?: boolean, disabled?: boolean, badge?: string, spoken?: string }} look
 *   `spoken`: the label with what the badge says
 * @property {() => Promise<void> | void} act
 */

export class Controls {
  #controls;
  #failed;
  #abort = new AbortController();

  /**
   * @param {Control[]} controls
   * @param {(error: unknown) => void} failed an action threw
   */
  constructor(controls, failed) {
    this.#controls = controls;
    this.#failed = failed;
    const { signal } = this.#abort;
    for (const control of controls) {
      byId(control.id, HTMLButtonElement).addEventListener('click', () => this.#run(control), { signal });
    }
    addEventListener('keydown', (event) => this.#onKey(event), { signal });
    this.refresh();
  }

  /** Draws every button as things stand now. */
  refresh() {
    for (const control of this.#controls) {
      const button = byId(control.id, HTMLButtonElement);
      const look = control.look();
      button.replaceChildren(icon(look.icon), make('span', 'control-label', look.label));
      button.title = `${look.label} (${control.key.toUpperCase()})`;
      button.setAttribute('aria-label', look.spoken ?? look.label);
      button.dataset.badge = look.badge ?? '';
      button.setAttribute('aria-keyshortcuts', control.key.toUpperCase());
      if (look.pressed === undefined) button.removeAttribute('aria-pressed');
      else button.setAttribute('aria-pressed', String(look.pressed));
      button.classList.toggle('off', look.off ?? false);
      button.disabled = look.disabled ?? false;
    }
  }

  remove() {
    this.#abort.abort();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target instanceof HTMLElement && event.target.matches('input, select, textarea')) return;
    const control = this.#controls.find(({ key }) => key === event.key.toLowerCase());
    if (!control || byId(control.id, HTMLButtonElement).disabled) return;
    event.preventDefault();
    this.#run(control);
  }

  /** @param {Control} control */
  async #run(control) {
    try {
      const done = control.act();
      this.refresh();
      await done;
    } catch (error) {
      this.#failed(error);
    } finally {
      if (!this.#abort.signal.aborted) this.refresh();
    }
  }
}
