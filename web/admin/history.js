/** What the workers said of themselves while this page was open. */

/** How far back graphs go at most. */
export const WINDOW_MS = 10 * 60_000;
/** The stretches of time a graph shows: it begins with the shortest, so that a page just opened is not nearly empty. */
const SPANS_MS = [1, 2, 5, 10].map((minutes) => minutes * 60_000);
/** Lines in one graph: more tell nothing apart. */
export const LINES = 8;

/**
 * @typedef {{ participants: number, sessions: number, packets: number, bits: number, memory: number, cpu: number }} Figures
 * @typedef {keyof Figures} Figure
 * @typedef {{ at: number, value: number }} Point
 * @typedef {{ id: string, points: Point[], last: number }} Line
 */

/** @param {any} worker as in GET /v1/workers @returns {Figures} */
export function figures({ load }) {
  return {
    participants: load.endpoints,
    sessions: load.pipelines,
    packets: load.packets_per_second,
    bits: load.bits_per_second ?? 0,
    memory: load.memory_bytes,
    cpu: load.cpu,
  };
}

export class History {
  /** @type {Map<string, { at: number, figures: Figures }[]>} */
  #workers = new Map();

  /**
   * Adds one look at all workers, and forgets what is too old.
   * @param {number} at milliseconds since the epoch
   * @param {any[]} workers
   */
  add(at, workers) {
    for (const worker of workers) {
      if (!worker.alive) continue;
      const samples = this.#workers.get(worker.id) ?? [];
      samples.push({ at, figures: figures(worker) });
      this.#workers.set(worker.id, samples);
    }
    for (const [id, samples] of this.#workers) {
      while (samples.length > 0 && samples[0].at < at - WINDOW_MS) samples.shift();
      if (samples.length === 0) this.#workers.delete(id);
    }
  }

  /** The shortest stretch of time, up to now, that everything remembered fits into. @param {number} now @returns {number} milliseconds */
  span(now) {
    const oldest = Math.min(now, ...[...this.#workers.values()].map(([first]) => first.at));
    return SPANS_MS.find((span) => now - oldest <= span) ?? WINDOW_MS;
  }

  /**
   * One line for each worker, the largest of its last values first; at most `LINES`.
   * @param {Figure} figure
   * @returns {Line[]}
   */
  lines(figure) {
    const lines = [...this.#workers].map(([id, samples]) => {
      const points = samples.map(({ at, figures: all }) => ({ at, value: all[figure] }));
      return { id, points, last: points[points.length - 1].value };
    });
    return lines.sort((one, other) => other.last - one.last || one.id.localeCompare(other.id)).slice(0, LINES);
  }

  /** One worker's line; empty for one that was never seen alive. @param {string} id @param {Figure} figure @returns {Point[]} */
  line(id, figure) {
    return (this.#workers.get(id) ?? []).map(({ at, figures: all }) => ({ at, value: all[figure] }));
  }
}

/** What all living workers do together. @param {any[]} workers @returns {Figures} */
export function total(workers) {
  const sum = { participants: 0, sessions: 0, packets: 0, bits: 0, memory: 0, cpu: 0 };
  for (const worker of workers) {
    if (!worker.alive) continue;
    const own = figures(worker);
    for (const name of /** @type {Figure[]} */ (Object.keys(sum))) sum[name] += own[name];
  }
  return sum;
}
