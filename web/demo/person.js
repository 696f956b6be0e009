/** How a person is drawn when there is no picture: initials on a colour of their own. */

/** Dark enough for white text (4.5:1 and better), far enough apart to tell people apart. */
const COLOURS = ['#2f6f6a', '#7a4b2f', '#4a5a9c', '#7b3f6b', '#55702c', '#8a3b3b', '#2d6a8f', '#6a5a2a'];

/**
 * @param {string} name
 * @returns {string} one or two capitals
 */
export function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  const first = letters.map((word) => Array.from(word)[0] ?? '').join('');
  return first.toLocaleUpperCase() || '?';
}

/**
 * The same id has the same colour in every browser.
 * @param {string} id
 */
export function colourOf(id) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.charCodeAt(0)) >>> 0;
  return COLOURS[hash % COLOURS.length];
}
