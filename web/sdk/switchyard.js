/**
 * The browser SDK of Switchyard. Plain ES modules: import this file, nothing is built.
 *
 * ```js
 * import { Room } from '/sdk/switchyard.js';
 * const room = await Room.join(link, { name: 'Ada', audio: true, video: true });
 * ```
 */

export { Room } from './room.js';
export { LocalParticipant } from './local-participant.js';
export { RemoteParticipant } from './participant.js';
export { LocalPublication, Publication } from './publication.js';
export { SwitchyardError } from './errors.js';
export { parseJoinLink } from './link.js';
