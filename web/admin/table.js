/** Cells of the tables; on a phone each row is a card, and every cell says what it is. */

import { make } from '../demo/dom.js';

/** @param {string} label of its column @param {string} [className] @param {string} [text] */
export function cell(label, className = '', text = '') {
  const made = make('td', className, text);
  if (label) made.setAttribute('data-label', label);
  return made;
}

/** What states are called, and how they look. @type {Record<string, string>} */
const LOOKS = {
  ready: 'good', open: 'good', connected: 'good', excellent: 'good', good: 'good',
  full: 'warn', draining: 'warn', moving: 'warn', joined: 'warn', new: 'warn', poor: 'warn',
  lost: 'bad', disconnected: 'bad',
};

/** Shows a state as a word with a colour. @param {Element} place @param {string} state empty: none */
export function pill(place, state) {
  let shown = place.querySelector('.pill');
  if (!state) {
    shown?.remove();
    return;
  }
  if (!shown) {
    shown = make('span', 'pill');
    place.append(shown);
  }
  if (shown.textContent === state) return;
  shown.textContent = state;
  shown.className = `pill ${LOOKS[state] ?? 'plain'}`;
}
