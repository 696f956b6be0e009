/** A member of the room and the tracks it publishes. */

import { Publication } from './publication.js';

export class Participant {
  /** @param {string} id @param {string} name */
  constructor(id, name) {
    this.id = id;
    this.name = name;
    /** @type {'joined' | 'connected' | 'disconnected'} */
    this.state = 'joined';
    this.speaking = false;
    /** How good its connection is, as the server says; `excellent` until it says otherwise. @type {import('./types.js').ConnectionQuality} */
    this.quality = 'excellent';
  }

  /** @returns {false | true} */
  get isLocal() {
    return false;
  }
}

export class RemoteParticipant extends Participant {
  constructor(/** @type {import('./types.js').ParticipantInfo} */ info) {
    super(info.id, info.name);
    this.state = info.state;
    /** By track id. @type {Map<string, Publication>} */
    this.tracks = new Map();
  }

  /**
   * The first track of a source.
   * @param {import('./types.js').TrackSource} source
   * @returns {Publication | undefined}
   */
  trackBySource(source) {
    return [...this.tracks.values()].find((publication) => publication.source === source);
  }
}
