/** Opens what the options of a join ask for. */

import { SwitchyardError } from './errors.js';

/**
 * @param {Pick<import('./types.js').JoinOptions, 'audio' | 'video'>} options
 * @returns {Promise<{ inits: import('./types.js').LocalTrackInit[], owned: MediaStreamTrack[] }>} `owned`
 *   are those that were opened here
 * @throws {SwitchyardError} `no_devices`
 * @throws {DOMException} from `getUserMedia`
 */
export async function openTracks({ audio = false, video = false }) {
  const given = [audio, video].filter((wish) => isTrack(wish));
  const inits = given.map((track) => ({ track: /** @type {MediaStreamTrack} */ (track) }));
  const wanted = {
    audio: isTrack(audio) ? false : audio,
    video: isTrack(video) ? false : video === true ? { width: { ideal: 1280 }, height: { ideal: 720 } } : video,
  };
  if (!wanted.audio && !wanted.video) return { inits, owned: [] };
  if (!globalThis.navigator?.mediaDevices?.getUserMedia) {
    throw new SwitchyardError('no_devices', 'camera and microphone need a secure (https) page');
  }
  const stream = await navigator.mediaDevices.getUserMedia(wanted);
  const owned = stream.getTracks();
  return { inits: [...inits, ...owned.map((track) => ({ track }))], owned };
}

/**
 * @param {unknown} wish
 * @returns {wish is MediaStreamTrack}
 */
function isTrack(wish) {
  return typeof wish === 'object' && wish !== null && 'kind' in wish && 'enabled' in wish;
}
