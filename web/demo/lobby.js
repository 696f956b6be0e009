/** Before the room: see yourself, hear that you are heard, choose devices and a name. */

import { byId, icon, setMessage } from './dom.js';
import { Meter } from './meter.js';
import { colourOf, initials } from './person.js';

const NAME_KEY = 'switchyard.name';
/** Someone who joins while the browser still asks about devices comes in without. Milliseconds. */
const DEVICE_PATIENCE_MS = 4000;

export class Lobby {
  #devices;
  #wanted = { audio: true, video: true };
  #meter = new Meter(byId('meter', HTMLElement));
  #name = byId('name', HTMLInputElement);
  #preview = byId('preview', HTMLVideoElement);
  #join = byId('join', HTMLButtonElement);
  #ready = Promise.resolve();
  #inRoom = false;
  /** What the room got. @type {Set<MediaStreamTrack>} */
  #given = new Set();

  /**
   * @param {import('./devices.js').Devices} devices
   * @param {() => Promise<void>} join
   */
  constructor(devices, join) {
    this.#devices = devices;
    this.#name.value = remembered();
    this.#name.addEventListener('input', () => this.#draw());
    byId('lobby-form', HTMLFormElement).addEventListener('submit', async (event) => {
      event.preventDefault();
      if (this.#join.disabled) return;
      this.#join.disabled = true;
      this.#join.textContent = 'Joining…';
      setMessage(byId('join-error', HTMLElement), '');
      remember(this.name);
      await Promise.race([this.#ready, new Promise((resolve) => setTimeout(resolve, DEVICE_PATIENCE_MS))]);
      await join();
      this.#join.disabled = false;
      this.#draw();
    });
    this.#bind('audio', 'lobby-mic', 'microphone-select');
    this.#bind('video', 'lobby-camera', 'camera-select');
    navigator.mediaDevices?.addEventListener?.('devicechange', () => this.#fillSelects());
  }

  get name() {
    return this.#name.value.trim() || 'Guest';
  }

  /** Opens the devices and shows them. @param {string} title the room's */
  show(title) {
    this.#inRoom = false;
    byId('lobby-room', HTMLElement).textContent = title;
    this.#ready = this.#openWanted();
    this.#draw();
    if (matchMedia('(hover: hover)').matches) this.#name.focus();
  }

  /** Stops drawing; the devices stay open, for the room. */
  leave() {
    this.#inRoom = true;
    this.#meter.stop();
    this.#preview.srcObject = null;
  }

  /**
   * What to publish: a microphone that is off is published muted, so that unmuting is instant; a camera
   * that is off stays off.
   * @returns {import('../sdk/types.js').LocalTrackInit[]}
   */
  tracks() {
    const { audio, video } = this.#devices.tracks;
    /** @type {import('../sdk/types.js').LocalTrackInit[]} */
    const tracks = [];
    if (audio) tracks.push({ track: audio, source: 'microphone', muted: !this.#wanted.audio });
    if (video) tracks.push({ track: video, source: 'camera' });
    this.#given = new Set(tracks.map(({ track }) => track));
    return tracks;
  }

  /** @param {string} message */
  showError(message) {
    setMessage(byId('join-error', HTMLElement), message);
  }

  async #openWanted() {
    if (this.#wanted.audio && this.#wanted.video) await this.#devices.openBoth();
    else await Promise.all(this.#kinds().map((kind) => this.#devices.open(kind)));
    if (this.#inRoom) {
      // Allowed too late to be published: nothing is to be open that nobody asked for in the room.
      for (const track of Object.values(this.#devices.tracks)) if (track && !this.#given.has(track)) track.stop();
      return;
    }
    for (const kind of /** @type {const} */ (['audio', 'video'])) {
      if (!this.#devices.tracks[kind]) this.#wanted[kind] = false;
    }
    await this.#fillSelects();
    this.#draw();
  }

  #kinds() {
    return /** @type {const} */ (['audio', 'video']).filter((kind) => this.#wanted[kind]);
  }

  /**
   * @param {'audio' | 'video'} kind
   * @param {string} buttonId
   * @param {string} selectId
   */
  #bind(kind, buttonId, selectId) {
    byId(buttonId, HTMLButtonElement).addEventListener('click', async () => {
      this.#wanted[kind] = !this.#wanted[kind];
      if (this.#wanted[kind] && !this.#devices.tracks[kind]) {
        await this.#devices.open(kind);
        this.#wanted[kind] = this.#devices.tracks[kind] !== null;
        await this.#fillSelects();
      } else if (!this.#wanted[kind] && kind === 'video') {
        this.#devices.close('video');
        this.#devices.problems.video = '';
      }
      this.#draw();
    });
    const select = byId(selectId, HTMLSelectElement);
    select.addEventListener('change', async () => {
      await this.#devices.open(kind, select.value);
      this.#wanted[kind] = this.#devices.tracks[kind] !== null;
      this.#draw();
    });
  }

  async #fillSelects() {
    for (const [kind, id, field] of /** @type {const} */ ([
      ['audio', 'microphone-select', 'microphone-field'],
      ['video', 'camera-select', 'camera-field'],
    ])) {
      const devices = await this.#devices.list(kind);
      const current = this.#devices.tracks[kind]?.getSettings().deviceId;
      const options = devices.map(({ deviceId, label }, index) => {
        const name = label || `${kind === 'audio' ? 'Microphone' : 'Camera'} ${index + 1}`;
        return new Option(name, deviceId, false, deviceId === current);
      });
      byId(id, HTMLSelectElement).replaceChildren(...options);
      byId(field, HTMLElement).hidden = devices.length === 0;
    }
  }

  #draw() {
    if (this.#inRoom) return;
    const { tracks, problems } = this.#devices;
    const video = this.#wanted.video ? tracks.video : null;
    const audio = this.#wanted.audio ? tracks.audio : null;
    if (((/** @type {MediaStream | null} */ (this.#preview.srcObject))?.getVideoTracks()[0] ?? null) !== video) {
      this.#preview.srcObject = video ? new MediaStream([video]) : null;
    }
    byId('preview-off', HTMLElement).hidden = video !== null;
    const avatar = byId('preview-avatar', HTMLElement);
    avatar.textContent = initials(this.name);
    avatar.style.backgroundColor = colourOf(this.name);
    byId('preview-message', HTMLElement).textContent =
      problems.video || (this.#wanted.video ? 'Starting the camera…' : 'Camera is off');
    this.#drawButton('lobby-mic', 'Microphone', 'mic', this.#wanted.audio);
    this.#drawButton('lobby-camera', 'Camera', 'camera', this.#wanted.video);
    this.#meter.show(audio);
    setMessage(byId('device-notice', HTMLElement), problems.audio);
    if (!this.#join.disabled) this.#join.textContent = tracks.audio || tracks.video ? 'Join' : 'Join as a viewer';
  }

  /** @param {string} id @param {string} label @param {string} iconName @param {boolean} on */
  #drawButton(id, label, iconName, on) {
    const button = byId(id, HTMLButtonElement);
    button.replaceChildren(icon(on ? iconName : `${iconName}-off`));
    button.setAttribute('aria-pressed', String(on));
    button.title = `${label} is ${on ? 'on' : 'off'}`;
    button.classList.toggle('off', !on);
  }
}

/** Private windows may refuse storage; the name is then simply not remembered. */
function remembered() {
  try {
    return localStorage.getItem(NAME_KEY) ?? '';
  } catch {
    return '';
  }
}

/** @param {string} name */
function remember(name) {
  try {
    localStorage.setItem(NAME_KEY, name === 'Guest' ? '' : name);
  } catch {
    // see remembered
  }
}
