/** One tile: a person with their camera, or a shared screen. */

import { make, icon } from './dom.js';
import { colourOf, initials } from './person.js';

export class Tile {
  #video = make('video');
  #avatar = make('span', 'avatar');
  #name = make('span', 'tile-name-text');
  #muted = icon('mic-off');
  #state = make('span', 'tile-state');
  #stats = make('pre', 'tile-stats');

  /**
   * @param {{ id: string, name: string, isLocal: boolean }} participant
   * @param {'camera' | 'screen'} source
   */
  constructor(participant, source) {
    this.source = source;
    this.element = make('div', 'tile');
    this.element.setAttribute('role', 'listitem');
    this.element.dataset.source = source;
    this.element.classList.toggle('local', participant.isLocal);

    this.#video.autoplay = true;
    this.#video.playsInline = true;
    this.#video.muted = true; // sound has elements of its own
    // Your own camera as in a mirror; a shared screen must stay readable.
    this.#video.classList.toggle('mirrored', participant.isLocal && source === 'camera');
    this.#avatar.setAttribute('aria-hidden', 'true');
    this.#muted.classList.add('tile-muted');
    this.#muted.setAttribute('role', 'img');
    this.#muted.setAttribute('aria-label', 'muted');
    this.#stats.hidden = true;

    const label = make('div', 'tile-name');
    label.append(this.#muted, this.#name);
    this.element.append(this.#avatar, this.#video, label, this.#state, this.#stats);
    this.update(participant);
  }

  /** @param {{ id: string, name: string, isLocal: boolean, state?: string }} participant */
  update({ id, name, isLocal, state }) {
    const shown = name || 'Guest';
    this.element.dataset.participant = id;
    this.#avatar.textContent = initials(shown);
    this.element.style.setProperty('--person', colourOf(id));
    this.#avatar.style.backgroundColor = colourOf(id);
    this.#name.textContent =
      this.source === 'screen' ? `${isLocal ? 'Your' : `${shown}’s`} screen` : isLocal ? `${shown} (you)` : shown;
    const away = state === 'disconnected';
    this.element.classList.toggle('away', away);
    this.#state.textContent = away ? 'Connection lost' : '';
  }

  /** @param {MediaStreamTrack | null} track */
  setVideo(track) {
    const stream = /** @type {MediaStream | null} */ (this.#video.srcObject);
    if ((stream?.getVideoTracks()[0] ?? null) !== track) this.#video.srcObject = track ? new MediaStream([track]) : null;
    this.element.classList.toggle('has-video', track !== null);
    if (track) this.#video.play().catch(() => {}); // autoplay of muted video is refused only while hidden
  }

  /** @param {boolean} muted */
  setMuted(muted) {
    this.element.classList.toggle('muted', muted);
    this.#muted.setAttribute('aria-hidden', String(!muted));
  }

  /** @param {boolean} speaking */
  setSpeaking(speaking) {
    this.element.classList.toggle('speaking', speaking);
  }

  /** @param {string | null} text null hides the figures */
  setStats(text) {
    this.#stats.hidden = text === null;
    this.#stats.textContent = text ?? '';
  }

  /** @param {import('./layout.js').Rect} rect */
  place({ x, y, width, height }) {
    const { style } = this.element;
    style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
    style.width = `${Math.floor(width)}px`;
    style.height = `${Math.floor(height)}px`;
    const size = Math.min(width, height);
    style.setProperty('--avatar', `${Math.round(Math.min(132, Math.max(36, size * 0.36)))}px`);
    this.element.classList.toggle('small', size < 150);
  }

  remove() {
    this.#video.srcObject = null;
    this.element.remove();
  }
}
