/** After a call: one to five stars, and a word if somebody has one. Nobody has to. */

import { byId, make } from './dom.js';

const STARS = [1, 2, 3, 4, 5];

export class Rating {
  #form = byId('rating', HTMLFormElement);
  #more = byId('rating-more', HTMLElement);
  #comment = byId('rating-comment', HTMLTextAreaElement);
  #status = byId('rating-status', HTMLElement);
  /** Of the call that was left. @type {import('../sdk/switchyard.js').Room | null} */
  #room = null;

  constructor() {
    byId('stars', HTMLElement).append(...STARS.map(star));
    this.#form.addEventListener('change', () => this.#draw());
    this.#form.addEventListener('submit', (event) => this.#send(event));
    byId('rating-skip', HTMLButtonElement).addEventListener('click', () => this.hide());
  }

  /** @param {import('../sdk/switchyard.js').Room} room that was left */
  ask(room) {
    this.#room = room;
    this.#form.reset();
    this.#status.textContent = '';
    this.#form.hidden = false;
    this.#draw();
  }

  hide() {
    this.#room = null;
    this.#form.hidden = true;
  }

  /** How many stars are chosen; 0: none yet. */
  get #chosen() {
    return Number(new FormData(this.#form).get('stars') ?? 0);
  }

  #draw() {
    const chosen = this.#chosen;
    this.#more.hidden = chosen === 0;
    for (const label of this.#form.querySelectorAll('.star')) {
      label.classList.toggle('lit', Number(/** @type {HTMLElement} */ (label).dataset.stars) <= chosen);
    }
  }

  /** @param {SubmitEvent} event */
  async #send(event) {
    event.preventDefault();
    const [room, stars, comment] = [this.#room, this.#chosen, this.#comment.value.trim()];
    if (!room || stars === 0) return;
    this.hide();
    this.#status.textContent = 'Sending …';
    try {
      await room.rate({ stars, ...(comment ? { comment } : {}) });
      this.#status.textContent = 'Thank you!';
    } catch {
      // Not worth another question: the person has left.
      this.#status.textContent = 'Your rating could not be sent.';
    }
  }
}

/** A radio button that looks like a star; the group works by arrow keys as any. @param {number} stars */
function star(stars) {
  const label = make('label', 'star');
  label.dataset.stars = String(stars);
  const input = make('input');
  input.type = 'radio';
  input.name = 'stars';
  input.value = String(stars);
  input.setAttribute('aria-label', stars === 1 ? '1 star' : `${stars} stars`);
  const drawn = make('span', 'star-drawn', '★');
  drawn.setAttribute('aria-hidden', 'true');
  label.append(input, drawn);
  return label;
}
