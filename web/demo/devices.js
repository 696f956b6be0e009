/** Camera and microphone: opening, choosing, and saying in plain words why one cannot be had. */

/** @typedef {'audio' | 'video'} Kind */

/** @type {Record<Kind, MediaTrackConstraints>} */
const WISHES = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
};

/** @type {Record<Kind, string>} */
const NAMES = { audio: 'microphone', video: 'camera' };

export class Devices {
  /** @type {Record<Kind, MediaStreamTrack | null>} */
  tracks = { audio: null, video: null };
  /** Why there is none, in words; empty when there is or when nobody asked. @type {Record<Kind, string>} */
  problems = { audio: '', video: '' };
  /** @type {Record<Kind, string>} */
  #chosen = { audio: '', video: '' };

  /** Opens both with one question to the person; falls back to whichever can be had. */
  async openBoth() {
    if (!supported()) {
      this.problems = { audio: explain('audio', null), video: explain('video', null) };
      return;
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: WISHES.audio, video: WISHES.video });
      for (const track of stream.getTracks()) this.#take(/** @type {Kind} */ (track.kind), track);
    } catch {
      // One of the two is missing or refused: asking for each finds out which.
      await Promise.all([this.open('audio'), this.open('video')]);
    }
  }

  /**
   * Opens one device, in place of the one of its kind that is open.
   * @param {Kind} kind
   * @param {string} [deviceId] by default the one chosen before
   * @returns {Promise<MediaStreamTrack | null>} null when it cannot be had; `problems` says why
   */
  async open(kind, deviceId = this.#chosen[kind]) {
    if (!supported()) {
      this.problems[kind] = explain(kind, null);
      return null;
    }
    const wish = deviceId ? { ...WISHES[kind], deviceId: { exact: deviceId } } : WISHES[kind];
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ [kind]: wish });
      this.#chosen[kind] = deviceId;
      this.#take(kind, stream.getTracks()[0]);
    } catch (error) {
      if (error instanceof DOMException && error.name === 'OverconstrainedError' && deviceId) {
        return this.open(kind, ''); // that device is gone: any other
      }
      this.problems[kind] = explain(kind, error);
    }
    return this.tracks[kind];
  }

  /** Lets go of a device; its light goes out. @param {Kind} kind */
  close(kind) {
    this.tracks[kind]?.stop();
    this.tracks[kind] = null;
  }

  closeAll() {
    this.close('audio');
    this.close('video');
  }

  /** What there is to choose from. @param {Kind} kind */
  async list(kind) {
    if (!supported()) return [];
    const all = await navigator.mediaDevices.enumerateDevices();
    return all.filter((device) => device.kind === `${kind}input` && device.deviceId !== '');
  }

  /** @param {Kind} kind @param {MediaStreamTrack} track */
  #take(kind, track) {
    if (this.tracks[kind] !== track) this.tracks[kind]?.stop();
    this.tracks[kind] = track;
    this.problems[kind] = '';
    if (kind === 'video') track.contentHint = 'motion';
  }
}

function supported() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

/**
 * @param {Kind} kind
 * @param {unknown} error null when the browser offers no devices at all
 */
export function explain(kind, error) {
  const name = NAMES[kind];
  const code = error instanceof DOMException ? error.name : '';
  if (error === null) return `The ${name} needs a secure page: open this address with https, or as localhost.`;
  if (code === 'NotAllowedError') return `The ${name} is blocked. Allow it beside the address bar, then switch it on here.`;
  if (code === 'NotFoundError') return `No ${name} found.`;
  if (code === 'NotReadableError') return `The ${name} is in use by another program.`;
  return `The ${name} could not be opened.`;
}
