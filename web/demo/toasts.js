/** Short messages that come and go. */

import { byId, make } from './dom.js';

/** Long enough to read twice. Milliseconds. */
const SHOWN_MS = 6000;
const LIMIT = 4;

/** What was said is no longer of interest. */
export function clearToasts() {
  byId('toasts', HTMLElement).replaceChildren();
}

/**
 * @param {string} text
 * @param {{ tone?: 'plain' | 'bad' }} [options]
 */
export function toast(text, { tone = 'plain' } = {}) {
  const area = byId('toasts', HTMLElement);
  const element = make('p', `toast ${tone}`, text);
  area.append(element);
  while (area.children.length > LIMIT) area.firstElementChild?.remove();
  setTimeout(() => element.remove(), SHOWN_MS);
}
