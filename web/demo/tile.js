/** One tile: a person with their camera, or a shared screen. */

import { make, icon } from './dom.js';
import { colourOf, initials } from './person.js';

/** A picture that takes the place of another is shown when it is there, or after this long. Milliseconds. */
const SWAP_PATIENCE_MS = 2000;

export class Tile {
  #video = make('video');
  /** What was seen before, shown until the new one has a picture. @type {HTMLVideoElement | HTMLCanvasElement | null} */
  #outgoing = null;
  #mirrored;
  #avatar = make('span', 'avatar');
  #name = make('span', 'tile-name-text');
  #muted = icon('mic-off');
  #quality = make('span', 'tile-quality');
  #state = make('span', 'tile-state');
  #suspended = make('span', 'tile-suspended');
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

    // Your own camera as in a mirror; a shared screen must stay readable.
    this.#mirrored = participant.isLocal && source === 'camera';
    this.#prepare(this.#video);
    this.#avatar.setAttribute('aria-hidden', 'true');
    this.#muted.classList.add('tile-muted');
    this.#muted.setAttribute('role', 'img');
    this.#muted.setAttribute('aria-label', 'muted');
    this.#stats.hidden = true;
    this.#suspended.hidden = true;
    this.#suspended.setAttribute('role', 'status');

    const label = make('div', 'tile-name');
    this.#quality.append(make('span'), make('span'), make('span'));
    this.#quality.setAttribute('role', 'img');
    this.#quality.hidden = source === 'screen';
    label.append(this.#muted, this.#name, this.#quality);
    this.element.append(this.#avatar, this.#video, label, this.#state, this.#suspended, this.#stats);
    this.update(participant);
  }

  /** @param {{ id: string, name: string, isLocal: boolean, state?: string, quality?: import('../sdk/types.js').ConnectionQuality }} participant */
  update({ id, name, isLocal, state, quality = 'excellent' }) {
    const shown = name || 'Guest';
    this.element.dataset.participant = id;
    this.#avatar.textContent = initials(shown);
    this.element.style.setProperty('--person', colourOf(id));
    this.#avatar.style.backgroundColor = colourOf(id);
    this.#name.textContent =
      this.source === 'screen' ? `${isLocal ? 'Your' : `${shown}’s`} screen` : isLocal ? `${shown} (you)` : shown;
    this.#quality.dataset.quality = quality;
    this.#quality.title = `Connection: ${quality}`;
    this.#quality.setAttribute('aria-label', this.#quality.title);
    const away = state === 'disconnected';
    this.element.classList.toggle('away', away);
    this.#state.textContent = away ? 'Connection lost' : '';
  }

  /**
   * @param {MediaStreamTrack | null} track
   * @param {{ hold?: boolean }} [options] without a track: keep the last picture, for another is on its way
   */
  setVideo(track, { hold = false } = {}) {
    const shown = /** @type {MediaStream | null} */ (this.#video.srcObject)?.getVideoTracks()[0] ?? null;
    const held = track === null && hold && (shown !== null || this.#outgoing instanceof HTMLCanvasElement);
    if (shown !== null && shown !== track) {
      this.#dropOutgoing();
      if (held) this.#keep(stillOf(this.#video));
      else if (track) this.#keep(this.#video);
    }
    if (shown !== track) this.#video.srcObject = track ? new MediaStream([track]) : null;
    if (!track && !held) this.#dropOutgoing();
    this.element.classList.toggle('held', held);
    this.element.classList.toggle('has-video', track !== null || held);
    if (track) this.#video.play().catch(() => {}); // autoplay of muted video is refused only while hidden
    if (track && this.#outgoing) this.#uncover(this.#outgoing);
  }

  /**
   * One picture stays until the next is there, which begins behind it.
   * @param {HTMLVideoElement | HTMLCanvasElement} outgoing
   */
  #keep(outgoing) {
    this.#outgoing = outgoing;
    if (outgoing === this.#video) {
      this.#video = make('video');
      this.#prepare(this.#video);
      outgoing.before(this.#video);
    } else {
      outgoing.className = this.#video.className;
      this.#video.after(outgoing);
    }
  }

  /** @param {HTMLVideoElement | HTMLCanvasElement} outgoing */
  #uncover(outgoing) {
    const done = () => {
      if (this.#outgoing === outgoing) this.#dropOutgoing();
    };
    this.#video.addEventListener('loadeddata', done, { once: true });
    setTimeout(done, SWAP_PATIENCE_MS);
  }

  #dropOutgoing() {
    if (this.#outgoing instanceof HTMLVideoElement) this.#outgoing.srcObject = null;
    this.#outgoing?.remove();
    this.#outgoing = null;
  }

  /** @param {HTMLVideoElement} video */
  #prepare(video) {
    video.autoplay = true;
    video.playsInline = true;
    video.muted = true; // sound has elements of its own
    video.classList.toggle('mirrored', this.#mirrored);
  }

  /** @param {boolean} muted */
  setMuted(muted) {
    this.element.classList.toggle('muted', muted);
    this.#muted.setAttribute('aria-hidden', String(!muted));
  }

  /** Why there is no picture of what is published, if that is so. @param {string | null} reason */
  setMissing(reason) {
    this.element.classList.toggle('suspended', reason !== null);
    this.#suspended.hidden = reason === null;
    this.#suspended.textContent = reason ?? '';
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
    this.#dropOutgoing();
    this.#video.srcObject = null;
    this.element.remove();
  }
}

/** What a video shows now; once its connection is closed it is black. @param {HTMLVideoElement} video */
function stillOf(video) {
  const still = make('canvas');
  still.width = video.videoWidth;
  still.height = video.videoHeight;
  still.getContext('2d')?.drawImage(video, 0, 0);
  return still;
}
