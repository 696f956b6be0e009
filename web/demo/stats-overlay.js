/** The figures on each tile, refreshed while they are shown. */

const INTERVAL_MS = 1000;

/** @typedef {import('../sdk/stats.js').TrackStats} TrackStats */

export class StatsOverlay {
  #room;
  #grid;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /**
   * @param {import('../sdk/switchyard.js').Room} room
   * @param {import('./grid.js').Grid} grid
   */
  constructor(room, grid) {
    this.#room = room;
    this.#grid = grid;
  }

  get shown() {
    return this.#timer !== undefined;
  }

  toggle() {
    if (this.shown) this.hide();
    else this.#show();
  }

  #show() {
    this.#timer = setInterval(() => this.#refresh(), INTERVAL_MS);
    this.#refresh();
  }

  hide() {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const [, tile] of this.#grid.tiles) tile.setStats(null);
  }

  async #refresh() {
    const { tracks, transport } = await this.#room.stats();
    if (!this.shown) return;
    for (const [, tile] of this.#grid.tiles) {
      const screen = tile.source === 'screen';
      const own = tracks.filter(
        ({ participantId, source }) =>
          participantId === tile.element.dataset.participant && source.startsWith('screen') === screen,
      );
      tile.setStats(describe(own, transport.rttMs));
    }
  }
}

/**
 * @param {TrackStats[]} tracks of one tile
 * @param {number | null} rttMs
 * @returns {string}
 */
export function describe(tracks, rttMs) {
  if (tracks.length === 0) return 'no media';
  const lines = [...tracks].sort((a, b) => b.kind.localeCompare(a.kind)).map(describeTrack);
  return [...lines, `rtt ${figure(rttMs, 0)} ms`].join('\n');
}

/** @param {TrackStats} track */
function describeTrack(track) {
  const arrow = track.direction === 'in' ? '↓' : '↑';
  const head = `${arrow} ${track.codec ?? track.kind} ${bitrate(track.bitrateBps)}`;
  const tail = `loss ${figure(track.lossPercent, 1)} %  jitter ${figure(track.jitterMs, 0)} ms`;
  if (track.kind === 'audio') return `${head}\n  ${tail}`;
  const size = track.width === null ? '–' : `${track.width}×${track.height}`;
  return `${head}\n  ${size} @ ${figure(track.fps, 0)} fps\n  ${tail}`;
}

/** @param {number | null} value @param {number} digits */
function figure(value, digits) {
  return value === null ? '–' : value.toFixed(digits);
}

/** @param {number | null} bitsPerSecond */
function bitrate(bitsPerSecond) {
  if (bitsPerSecond === null) return '–';
  return bitsPerSecond >= 1e6 ? `${(bitsPerSecond / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}
