/**
 * The figures on each tile, refreshed while they are shown: what the browser measures, and beside it what the server
 * sees of the same tracks.
 */

const INTERVAL_MS = 2000;

/** @typedef {import('../sdk/stats.js').TrackStats} TrackStats */
/** @typedef {import('../sdk/stats.js').RoomStats} RoomStats */
/** @typedef {import('../sdk/types.js').ServerStats} ServerStats */

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
    if (document.hidden) return; // nobody looks
    // Without the server's figures (it is away, or older) the browser's own are still worth showing.
    const [measured, server] = await Promise.all([this.#room.stats(), this.#room.serverStats().catch(() => null)]);
    if (!this.shown) return;
    for (const [, tile] of this.#grid.tiles) {
      const screen = tile.source === 'screen';
      const tracks = measured.tracks.filter(
        ({ participantId, source }) =>
          participantId === tile.element.dataset.participant && source.startsWith('screen') === screen,
      );
      tile.setStats(describe(tracks, measured.transport, server));
    }
  }
}

/**
 * @param {TrackStats[]} tracks of one tile
 * @param {RoomStats['transport']} transport
 * @param {ServerStats | null} server
 * @returns {string} lines, each a name and a value
 */
export function describe(tracks, transport, server) {
  if (tracks.length === 0) return 'no media';
  // What the browser sends in several sizes is one track.
  const byId = new Map(tracks.map((track) => [`${track.direction} ${track.trackId}`, largest(tracks, track)]));
  const sorted = [...byId.values()].sort((a, b) => b.kind.localeCompare(a.kind));
  const lines = sorted.flatMap((track) => describeTrack(track, server));
  const outgoing = sorted.some(({ direction }) => direction === 'out');
  const rtt = transport.rttMs ?? server?.transport.round_trip_time_ms ?? null;
  const estimate = outgoing ? transport.availableOutgoingBps : (server?.transport.available_outgoing_bitrate_bps ?? null);
  lines.push('⇄ connection', row('rtt', `${figure(rtt, 0)} ms`), row('estimate', bitrate(estimate)));
  return lines.join('\n');
}

/** @param {TrackStats[]} tracks @param {TrackStats} like @returns {TrackStats} */
function largest(tracks, like) {
  const same = tracks.filter(({ trackId, direction }) => trackId === like.trackId && direction === like.direction);
  const total = same.reduce((sum, { bitrateBps }) => (bitrateBps === null ? sum : (sum ?? 0) + bitrateBps), /** @type {number | null} */ (null));
  const best = same.reduce((one, other) => ((other.width ?? 0) > (one.width ?? 0) ? other : one));
  return { ...best, bitrateBps: total };
}

/** @param {TrackStats} track @param {ServerStats | null} server @returns {string[]} */
function describeTrack(track, server) {
  const arrow = track.direction === 'in' ? '↓' : '↑';
  const size = track.width === null ? '' : ` ${track.width}×${track.height}`;
  const fps = track.fps === null ? '' : ` ${figure(track.fps, 0)} fps`;
  const layer = track.direction === 'in' ? layerReceived(track, server) : layersSent(track, server);
  const name = track.direction === 'in' ? 'layer' : 'layers';
  return [
    `${arrow} ${track.codec ?? track.kind}${size}${fps}`,
    ...(layer === null || track.kind === 'audio' ? [] : [row(name, layer)]),
    row('rate', bitrate(track.bitrateBps)),
    row('loss', `${figure(track.lossPercent, 1)} %, jitter ${figure(track.jitterMs, 0)} ms`),
  ];
}

/** What the server sends us of a track, or why nothing. @param {TrackStats} track @param {ServerStats | null} server */
function layerReceived(track, server) {
  const found = server?.subscribed.find(({ track_id: id }) => id === track.trackId);
  if (!found) return null;
  const { current, state } = found;
  return current ? `${current.encoding}, spatial ${current.spatial}, temporal ${current.temporal}` : state.replace('_', ' ');
}

/** What arrives of ours, size by size. @param {TrackStats} track @param {ServerStats | null} server */
function layersSent(track, server) {
  const found = server?.published.find(({ track_id: id }) => id === track.trackId);
  if (!found || found.encodings.length < 2) return null;
  const rates = found.encodings.map(({ alive, bitrate_bps: bps }) => (alive ? Math.round(bps / 1e3) : 'off'));
  return `${rates.join(' / ')} kbit/s`;
}

/** @param {string} name @param {string} value */
function row(name, value) {
  return `  ${name.padEnd(8)} ${value}`;
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
