/** Line graphs as SVG: attributes only, so that a page without inline styles may show them. */

/** @typedef {import('./history.js').Line} Line @typedef {import('./history.js').Point} Point */

const SVG = 'http://www.w3.org/2000/svg';
/** In the graph's own units; it is scaled to its place. */
const WIDTH = 300;
const HEIGHT = 84;
const TOP = 6;

/**
 * The next round number above, for the top of a scale: 1, 2 or 5 times a power of ten. @param {number} value
 */
export function ceiling(value) {
  if (!(value > 0) || !Number.isFinite(value)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 5, 10].find((one) => one * power >= value * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/**
 * The `d` of a path through these points, oldest at the left. Empty for none.
 * @param {Point[]} points
 * @param {{ now: number, span: number, top: number, width?: number, height?: number }} scale `span`: milliseconds from the left edge to
 *   the right one, which is now; `top`: the value at the upper edge
 */
export function path(points, { now, span, top, width = WIDTH, height = HEIGHT }) {
  const x = (/** @type {number} */ at) => width * (1 - (now - at) / span);
  const y = (/** @type {number} */ value) => height - (height - TOP) * Math.min(1, Math.max(0, value / top));
  const shown = points.filter(({ at }) => at >= now - span && at <= now);
  if (shown.length === 0) return '';
  // One look alone is a short dash rather than nothing.
  const [first] = shown;
  const all = shown.length === 1 ? [{ at: first.at - 2000, value: first.value }, first] : shown;
  return `M${all.map(({ at, value }) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join('L')}`;
}

/** @param {string} name @param {Record<string, string | number>} attributes */
function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

/** A graph with one line for each worker. */
export class Chart {
  #lines;
  /** @type {Map<string, SVGElement>} */
  #paths = new Map();

  /** @param {string} label what it shows @param {boolean} [small] without grid, for a row of a table */
  constructor(label, small = false) {
    this.svg = element('svg', {
      class: small ? 'chart small' : 'chart', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none',
      role: 'img', 'aria-label': label,
    });
    if (!small) {
      for (const part of [0, 0.5]) {
        const y = TOP + (HEIGHT - TOP) * part;
        this.svg.append(element('line', { class: 'grid', x1: 0, x2: WIDTH, y1: y, y2: y }));
      }
    }
    this.svg.append(element('line', { class: 'base', x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }));
    this.#lines = element('g', {});
    this.svg.append(this.#lines);
  }

  /**
   * @param {Line[]} lines @param {{ now: number, span: number }} time milliseconds since the epoch, and how many before that are shown
   * @param {(id: string) => number} colour of a worker, 0 to 7 @returns {number} what the upper edge stands for
   */
  draw(lines, { now, span }, colour) {
    const top = ceiling(Math.max(0, ...lines.flatMap(({ points }) => points.map(({ value }) => value))));
    const shown = new Set(lines.map(({ id }) => id));
    for (const [id, old] of this.#paths) {
      if (shown.has(id)) continue;
      old.remove();
      this.#paths.delete(id);
    }
    for (const { id, points } of lines) {
      let line = this.#paths.get(id);
      if (!line) {
        line = element('path', { 'vector-effect': 'non-scaling-stroke' });
        this.#paths.set(id, line);
        this.#lines.append(line);
      }
      line.setAttribute('class', `line colour-${colour(id)}`);
      line.setAttribute('d', path(points, { now, span, top }));
    }
    return top;
  }
}

/** Gives each worker one of eight colours, the same for as long as the page is open. */
export class Colours {
  /** @type {Map<string, number>} */
  #given = new Map();

  /** @param {string} id */
  of = (id) => {
    const known = this.#given.get(id);
    if (known !== undefined) return known;
    const next = this.#given.size % 8;
    this.#given.set(id, next);
    return next;
  };
}
