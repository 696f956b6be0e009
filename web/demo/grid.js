/** The tiles on the screen: shared screens on the stage, people around them or in the grid. */

import { gridLayout, stageLayout } from './layout.js';

export class Grid {
  #container;
  /** In the order in which people came. @type {Map<string, import('./tile.js').Tile>} */
  #tiles = new Map();
  #observer;

  /** @param {HTMLElement} container */
  constructor(container) {
    this.#container = container;
    this.#observer = new ResizeObserver(() => this.layOut());
    this.#observer.observe(container);
  }

  /** @param {string} key */
  get(key) {
    return this.#tiles.get(key);
  }

  get tiles() {
    return this.#tiles.entries();
  }

  /** @param {string} key @param {import('./tile.js').Tile} tile */
  add(key, tile) {
    this.#tiles.get(key)?.remove();
    this.#tiles.set(key, tile);
    // Where it will be, before it is seen: no flight across the screen.
    this.#container.append(tile.element);
    tile.element.classList.add('entering');
    this.layOut();
    requestAnimationFrame(() => tile.element.classList.remove('entering'));
  }

  /** @param {string} key */
  remove(key) {
    this.#tiles.get(key)?.remove();
    if (this.#tiles.delete(key)) this.layOut();
  }

  /** Also stops watching the size; the grid is not used after that. */
  clear() {
    this.#observer.disconnect();
    for (const tile of this.#tiles.values()) tile.remove();
    this.#tiles.clear();
  }

  layOut() {
    const { clientWidth: width, clientHeight: height } = this.#container;
    const gap = Math.min(width, height) < 500 ? 6 : 10;
    const tiles = [...this.#tiles.values()];
    const screens = tiles.filter((tile) => tile.source === 'screen');
    const people = tiles.filter((tile) => tile.source !== 'screen');
    if (screens.length === 0) {
      const { rects } = gridLayout(people.length, width, height, { gap });
      people.forEach((tile, index) => rects[index] && tile.place(rects[index]));
      return;
    }
    const { stage, strip } = stageLayout(screens.length, people.length, width, height, { gap });
    screens.forEach((tile, index) => tile.place(stage[index]));
    people.forEach((tile, index) => strip[index] && tile.place(strip[index]));
  }
}
