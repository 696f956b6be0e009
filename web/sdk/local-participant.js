/** Ourselves: publishing, muting, screen share. What is published survives a rejoin. */

import { SwitchyardError } from './errors.js';
import { newId } from './ids.js';
import { Participant } from './participant.js';
import { LocalPublication } from './publication.js';

/**
 * What the room does for its local participant.
 * @typedef {object} LocalHooks
 * @property {() => import('./connection.js').Connection | null} connection the one to publish on, if joined
 * @property {() => import('./connection.js').Connection[]} connections all that publish: two while moving
 * @property {() => Promise<void>} negotiate resolves once the server has what is published now
 * @property {(trackId: string, muted: boolean) => Promise<unknown>} sendMuted
 * @property {(name: 'localTrackPublished' | 'localTrackUnpublished' | 'localTrackEnded' | 'localTrackReplaced', publication: LocalPublication) => void} changed
 * @property {(publication: LocalPublication) => void} mutedChanged
 */

export class LocalParticipant extends Participant {
  /** In the order of publishing. @type {Set<LocalPublication>} */
  #publications = new Set();
  /** Every track id that was ever ours, whatever became of the request that named it. @type {Set<string>} */
  #issued = new Set();
  /** Of those, the ones that no connection has used yet. @type {Set<string>} */
  #unused = new Set();
  #hooks;

  /** @param {string} name @param {LocalHooks} hooks */
  constructor(name, hooks) {
    super('', name);
    this.#hooks = hooks;
  }

  get isLocal() {
    return true;
  }

  /** By track id. */
  get tracks() {
    return new Map([...this.#publications].map((publication) => [publication.id, publication]));
  }

  /** @param {import('./types.js').TrackSource} source */
  trackBySource(source) {
    return [...this.#publications].find((publication) => publication.source === source);
  }

  /**
   * Publishes a track. While the room reconnects it is kept and published with the rejoin.
   * @param {MediaStreamTrack} track stays yours: unpublishing does not stop it
   * @param {{ source?: import('./types.js').TrackSource, muted?: boolean, simulcast?: boolean }} [options]
   * @returns {Promise<LocalPublication>} once the server has accepted it
   * @throws {SwitchyardError} `forbidden`, `limit_exceeded`; nothing is published then
   */
  async publish(track, options = {}) {
    const [publication] = await this.publishAll([{ track, ...options }]);
    return publication;
  }

  /**
   * Publishes several tracks with one negotiation.
   * @param {import('./types.js').LocalTrackInit[]} tracks
   * @returns {Promise<LocalPublication[]>}
   */
  async publishAll(tracks) {
    const publications = tracks.map((init) => this.add(init));
    try {
      await this.#hooks.negotiate();
    } catch (error) {
      for (const publication of publications) this.#remove(publication);
      throw error;
    }
    for (const publication of publications) {
      // Muted while it was on its way: the offer said otherwise.
      this.#syncMuted(publication).catch(() => {});
    }
    return publications;
  }

  /**
   * @param {MediaStreamTrack | string | LocalPublication} which the track, its id or its source
   * @returns {Promise<void>} once the server knows
   */
  async unpublish(which) {
    this.#remove(this.#find(which));
    await this.#hooks.negotiate();
  }

  /**
   * Mutes or unmutes: the track is disabled here at once, and the others are told.
   * @param {MediaStreamTrack | string | LocalPublication} which the track, its id or its source
   * @param {boolean} muted
   */
  async setMuted(which, muted) {
    const publication = this.#find(which);
    if (publication.muted === muted) return;
    publication.muted = muted;
    publication.track.enabled = !muted;
    this.#hooks.mutedChanged(publication);
    await this.#syncMuted(publication);
  }

  /**
   * Sends another track in place of a published one, for example from another camera; the others
   * notice nothing but the picture.
   * @param {MediaStreamTrack | string | LocalPublication} which
   * @param {MediaStreamTrack} track of the same kind; the old one is yours to stop
   */
  async replaceTrack(which, track) {
    const publication = this.#find(which);
    if (track.kind !== publication.kind) throw new TypeError(`a ${publication.kind} track is needed`);
    publication.track = track;
    track.enabled = !publication.muted;
    this.#watch(publication);
    await Promise.all(this.#hooks.connections().map((connection) => connection.replace(publication, track)));
    this.#hooks.changed('localTrackReplaced', publication);
  }

  /**
   * Asks for a screen, window or tab and publishes it, with its sound where the browser offers it.
   * @param {DisplayMediaStreamOptions} [options]
   * @returns {Promise<LocalPublication[]>}
   * @throws {DOMException} `NotAllowedError` when the person cancels
   */
  async startScreenShare(options = { video: { frameRate: { ideal: 15, max: 30 } }, audio: true }) {
    if (!navigator.mediaDevices?.getDisplayMedia) {
      throw new SwitchyardError('no_devices', 'this browser cannot share a screen');
    }
    await this.stopScreenShare();
    const stream = await navigator.mediaDevices.getDisplayMedia(options);
    const tracks = stream.getTracks();
    for (const track of tracks) {
      if (track.kind === 'video') track.contentHint = 'detail';
      // Stopped from the browser's own bar.
      track.addEventListener('ended', () => this.stopScreenShare().catch(() => {}));
    }
    try {
      return await this.publishAll(
        tracks.map((track) => ({ track, source: track.kind === 'video' ? 'screen' : 'screen_audio' })),
      );
    } catch (error) {
      for (const track of tracks) track.stop();
      throw error;
    }
  }

  /** Ends the screen share; does nothing when there is none. */
  async stopScreenShare() {
    const shared = [...this.#publications].filter(({ source }) => source === 'screen' || source === 'screen_audio');
    if (shared.length === 0) return;
    for (const publication of shared) {
      publication.track.stop();
      this.#remove(publication);
    }
    await this.#hooks.negotiate();
  }

  // ---- for the room ----

  /** What is to be published, whether or not the server has it yet. */
  get publications() {
    return this.#publications;
  }

  /**
   * Takes a track up without sending anything: the next offer or join will.
   * @param {import('./types.js').LocalTrackInit} init
   */
  add({ track, source, muted = false, simulcast = true }) {
    if ([...this.#publications].some((publication) => publication.track === track)) {
      throw new TypeError('this track is published already');
    }
    const by = source ?? (track.kind === 'audio' ? 'microphone' : 'camera');
    const publication = new LocalPublication(this.#issue(), track, by, muted, simulcast);
    this.#unused.add(publication.id);
    this.#publications.add(publication);
    this.#watch(publication);
    this.#hooks.changed('localTrackPublished', publication);
    return publication;
  }

  /**
   * The track id under which one more connection publishes this: the server may still know the ids of the
   * one before.
   * @param {LocalPublication} publication
   */
  identify(publication) {
    return this.#unused.delete(publication.id) ? publication.id : this.#issue();
  }

  /**
   * What a connection publishes, as the server has it.
   * @param {import('./connection.js').Connection} connection
   * @param {import('./types.js').TrackInfo[]} tracks
   */
  published(connection, tracks) {
    for (const publication of this.#publications) {
      const known = tracks.find((track) => track.mid === connection.midOf(publication));
      if (!known || publication.home === connection) continue;
      publication.home = connection;
      publication.id = known.id;
      publication.serverMuted = known.muted;
    }
  }

  /** Whether a track with this id can only have been published by us. @param {string} id */
  hasIssued(id) {
    return this.#issued.has(id);
  }

  /** Brings the server's idea of what is muted up to ours, after anything that may have parted them. */
  async syncAll() {
    await Promise.all([...this.#publications].map((publication) => this.#syncMuted(publication)));
  }

  /**
   * A moderator muted or unmuted one of ours.
   * @param {string} trackId @param {boolean} muted
   */
  mutedByAdmin(trackId, muted) {
    const publication = this.tracks.get(trackId);
    if (!publication) return;
    publication.serverMuted = muted;
    if (publication.muted === muted) return;
    publication.muted = muted;
    publication.track.enabled = !muted;
    this.#hooks.mutedChanged(publication);
  }

  #issue() {
    const id = newId('trk');
    this.#issued.add(id);
    return id;
  }

  /** @param {LocalPublication} publication */
  #watch(publication) {
    const { track } = publication;
    track.addEventListener('ended', () => {
      if (publication.track === track) this.#hooks.changed('localTrackEnded', publication);
    });
  }

  /**
   * Requests about one track go one after the other; the last wish wins.
   * @param {LocalPublication} publication
   */
  async #syncMuted(publication) {
    if (publication.syncing) return publication.syncing;
    publication.syncing = (async () => {
      while (this.#publications.has(publication) && publication.serverMuted !== publication.muted) {
        const connection = this.#hooks.connection();
        if (!connection || publication.home !== connection) return; // the join or offer that publishes it says so
        const { muted } = publication;
        await this.#hooks.sendMuted(publication.id, muted);
        if (publication.home === connection) publication.serverMuted = muted;
      }
    })().finally(() => {
      publication.syncing = null;
    });
    return publication.syncing;
  }

  /** @param {LocalPublication} publication */
  #remove(publication) {
    if (this.#publications.delete(publication)) this.#hooks.changed('localTrackUnpublished', publication);
  }

  /** @param {MediaStreamTrack | string | LocalPublication} which */
  #find(which) {
    for (const publication of this.#publications) {
      if ([publication, publication.track, publication.id, publication.source].includes(which)) return publication;
    }
    throw new SwitchyardError('track_not_found', 'this is not published');
  }
}
