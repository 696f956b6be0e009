/** The few helpers that every part of the demo needs. */

/**
 * The element with this id.
 * @template {Element} T
 * @param {string} id
 * @param {new (...args: any[]) => T} type what it must be
 * @returns {T}
 */
export function byId(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return found;
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, className = '', text = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/**
 * An icon of icons.svg; decoration, its button carries the label.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.classList.add('icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `/demo/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/**
 * Shows one of the screens and hides the others.
 * @param {'lobby' | 'room' | 'left' | 'link'} name
 */
export function showScreen(name) {
  for (const screen of document.querySelectorAll('.screen')) {
    if (screen instanceof HTMLElement) screen.hidden = screen.id !== `${name}-screen`;
  }
}

/**
 * Sets or clears the text of a message line.
 * @param {HTMLElement} element
 * @param {string} text empty hides it
 */
export function setMessage(element, text) {
  element.textContent = text;
  element.hidden = text === '';
}
