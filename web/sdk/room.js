/**
 * A room: join it, listen to its events, publish, leave. Repairs itself: an event transport that fails
 * is replaced by the next, a lost path gets an ICE restart, a lost endpoint or media server a rejoin, and a media
 * server that is about to go is left before it goes (membership.js).
 *
 * ```js
 * const room = await Room.join(link, { name: 'Ada', audio: true, video: true });
 * room.on('trackSubscribed', (track, publication, participant) => { … });
 * ```
 *
 * Whoever is there already is in `room.participants` when `join` resolves; events tell what changes
 * from then on.
 */

import { ActiveSpeakers } from './active-speakers.js';
import { Api } from './api.js';
import { Emitter } from './emitter.js';
import { LevelReader } from './levels.js';
import { parseJoinLink } from './link.js';
import { LocalParticipant } from './local-participant.js';
import { fromEvent } from './frames.js';
import { openTracks } from './media.js';
import { Membership } from './membership.js';
import { Messages } from './messages.js';
import { ParticipantApi } from './participant-api.js';
import { Roster } from './roster.js';
import { StatsReader } from './stats.js';
import { watchVisibility } from './visibility.js';

const SPEAKER_INTERVAL_MS = 200;

/** @typedef {import('./publication.js').Publication} Publication */
/** @typedef {import('./publication.js').LocalPublication} LocalPublication */
/** @typedef {import('./participant.js').RemoteParticipant} RemoteParticipant */

/**
 * @typedef {object} RoomEvents
 * @property {[RemoteParticipant]} participantJoined
 * @property {[RemoteParticipant, import('./types.js').LeaveReason]} participantLeft
 * @property {[RemoteParticipant]} participantUpdated name or connection state
 * @property {[Publication, RemoteParticipant]} trackPublished
 * @property {[Publication, RemoteParticipant]} trackUnpublished
 * @property {[MediaStreamTrack, Publication, RemoteParticipant]} trackSubscribed media is on its way
 * @property {[MediaStreamTrack, Publication, RemoteParticipant]} trackUnsubscribed
 * @property {[MediaStreamTrack, Publication, RemoteParticipant, MediaStreamTrack]} trackSwitched the same media
 *   comes by another connection now: play the new track in place of the old one (last argument), which goes on for
 *   another two seconds
 * @property {[Publication | LocalPublication, RemoteParticipant | LocalParticipant]} trackMuted
 * @property {[Publication | LocalPublication, RemoteParticipant | LocalParticipant]} trackUnmuted
 * @property {[Publication, RemoteParticipant]} trackRefused this browser cannot decode it (`publication.refused`)
 * @property {[Publication, RemoteParticipant]} videoSuspended our way to the server carries too little for it
 * @property {[Publication, RemoteParticipant]} videoResumed
 * @property {[Publication, RemoteParticipant]} videoHeld others spoke later, and the session shows only the last who did
 * @property {[Publication, RemoteParticipant]} videoReleased
 * @property {[LocalPublication]} localTrackPublished
 * @property {[LocalPublication]} localTrackUnpublished
 * @property {[LocalPublication]} localTrackReplaced
 * @property {[LocalPublication]} localTrackEnded its device went away
 * @property {[(RemoteParticipant | LocalParticipant)[]]} activeSpeakers who leads first
 * @property {[RemoteParticipant | LocalParticipant]} qualityChanged how good a connection is, ours too
 * @property {[import('./types.js').ConnectionState]} connectionState
 * @property {[import('./types.js').InterruptionCause]} interrupted media stopped, the SDK repairs it
 * @property {[import('./errors.js').SwitchyardError]} disconnected gave up; `reconnect()` tries anew
 * @property {[import('./types.js').Message]} message from another participant, or from the application
 * @property {[]} messagesMissed we did not keep up with reliable messages: some are missing before the next one
 * @property {[import('./types.js').ServerEvent]} serverEvent every event as the server sent it, for diagnosis
 * @property {[string]} closed why: `left`, `removed`, `session_closed`, `taken_over`, `unauthorized`
 */

/** @extends {Emitter<RoomEvents & { [name: string]: any[] }>} */
export class Room extends Emitter {
  #api;
  #roster;
  /** @type {Membership} */
  #membership;
  #levels = new LevelReader();
  #speakers = new ActiveSpeakers();
  /** @type {Messages} */
  #messages;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #speakerTimer;
  #pageHidden = () => {
    this.#membership.leave({ keepalive: true });
  };

  /**
   * Joins the room of a link.
   * @param {string | URL} link `https://…/#session=…&token=…`
   * @param {import('./types.js').JoinOptions} [options]
   * @returns {Promise<Room>} joined; media may still be a few round trips away
   * @throws {SwitchyardError} the server's refusal, `invalid_link`, `network`, `aborted`, `no_devices`
   * @throws {DOMException} from `getUserMedia`, when `audio` or `video` asked for devices
   */
  static async join(link, options = {}) {
    const { base, sessionId, token } = parseJoinLink(link);
    const api = new ParticipantApi(new Api(options.apis ?? [base]), sessionId, token);
    api.participantId = options.participantId;
    const room = new Room(api, options);
    const opened = await openTracks(options);
    try {
      for (const init of [...opened.inits, ...(options.tracks ?? [])]) {
        room.localParticipant.add({ simulcast: options.simulcast, ...init });
      }
      await room.#membership.join({ signal: options.signal });
      if (room.connectionState !== 'closed') room.#speakerTimer = setInterval(() => room.#listen(), SPEAKER_INTERVAL_MS);
    } catch (error) {
      for (const track of opened.owned) track.stop();
      room.#membership.close('failed');
      throw error;
    }
    return room;
  }

  /**
   * @private use `Room.join`
   * @param {ParticipantApi} api
   * @param {import('./types.js').JoinOptions} options
   */
  constructor(api, options) {
    super();
    this.#api = api;
    this.#roster = new Roster({
      participantJoined: (participant) => this.emit('participantJoined', participant),
      participantLeft: (participant, reason) => this.emit('participantLeft', participant, reason),
      participantUpdated: (participant) => this.emit('participantUpdated', participant),
      trackPublished: (publication, participant) => this.emit('trackPublished', publication, participant),
      trackUnpublished: (publication, participant) => this.emit('trackUnpublished', publication, participant),
      trackSubscribed: (...args) => this.emit('trackSubscribed', ...args),
      trackUnsubscribed: (...args) => this.emit('trackUnsubscribed', ...args),
      trackSwitched: (...args) => this.emit('trackSwitched', ...args),
      trackMuted: (publication, participant) => this.emit('trackMuted', publication, participant),
      trackUnmuted: (publication, participant) => this.emit('trackUnmuted', publication, participant),
      trackRefused: (publication, participant) => this.emit('trackRefused', publication, participant),
      videoSuspended: (publication, participant) => this.emit('videoSuspended', publication, participant),
      videoResumed: (publication, participant) => this.emit('videoResumed', publication, participant),
      videoHeld: (publication, participant) => this.emit('videoHeld', publication, participant),
      videoReleased: (publication, participant) => this.emit('videoReleased', publication, participant),
    });
    this.localParticipant = new LocalParticipant(options.name ?? '', {
      connection: () => this.#membership.current?.connection ?? null,
      connections: () => this.#membership.endpoints.map(({ connection }) => connection),
      negotiate: () => this.#membership.negotiate(),
      sendMuted: (trackId, muted) => this.#membership.sendMuted(trackId, muted),
      changed: (name, publication) => this.emit(name, publication),
      mutedChanged: (publication) =>
        this.emit(publication.muted ? 'trackMuted' : 'trackUnmuted', publication, this.localParticipant),
    });
    this.#messages = new Messages(
      () => this.#membership.endpoints.map(({ connection }) => connection.data),
      ({ from, topic, direct = false, data }) => {
        if (from !== undefined && from === this.localParticipant.id) return;
        const participant = from === undefined ? undefined : this.participants.get(from);
        this.emit('message', { data, from, participant, topic, direct });
      },
    );
    const people = { roster: this.#roster, local: this.localParticipant };
    this.#membership = new Membership(api, people, options, {
      stateChanged: (state) => this.emit('connectionState', state),
      interrupted: (cause) => this.emit('interrupted', cause),
      disconnected: (error) => this.emit('disconnected', error),
      joined: () => this.#speakers.forget(),
      message: (data) => this.#messages.handle(fromEvent(data)),
      data: {
        received: (message) => this.#messages.handle(message),
        writable: () => this.#messages.flush(),
        missed: () => this.emit('messagesMissed'),
      },
      serverEvent: (event) => {
        this.emit('serverEvent', event);
        this.#handle(event);
      },
      closed: (reason) => {
        globalThis.removeEventListener?.('pagehide', this.#pageHidden);
        clearInterval(this.#speakerTimer);
        this.#messages.close();
        this.emit('closed', reason);
      },
    });
    if (options.leaveOnPageHide !== false) globalThis.addEventListener?.('pagehide', this.#pageHidden);
  }

  get sessionId() {
    return this.#api.sessionId;
  }

  /** Everyone else, by participant id. */
  get participants() {
    return this.#roster.participants;
  }

  get connectionState() {
    return this.#membership.state;
  }

  /** The event transport in use, null while it reconnects. */
  get transport() {
    return this.#membership.current?.transport ?? null;
  }

  /** Negotiations completed on the present connection, from either side. */
  get revision() {
    return this.#membership.current?.connection.revision ?? 0;
  }

  /** The connection underneath, for diagnosis; another one after every rejoin. */
  get peerConnection() {
    return this.#membership.current?.connection.peer ?? null;
  }

  /** All connections underneath, newest first: two while the room moves to another media server. */
  get peerConnections() {
    return this.#membership.endpoints.map(({ connection }) => connection.peer);
  }

  /**
   * Limits what is received of someone's track, or pauses it; each call says everything. It holds until the next call, over
   * rejoins too.
   * @param {Publication} publication
   * @param {import('./types.js').Quality} quality
   * @returns {Promise<void>} once the server knows; another size comes with its next key frame
   * @throws {SwitchyardError} `track_not_found` while it is not subscribed
   */
  setQuality(publication, quality) {
    return this.#membership.setQuality(publication, quality);
  }

  /**
   * From now on no more comes of someone's video than the element can show, and nothing while nobody sees it. What
   * `setQuality` says goes before that.
   * @param {Publication} publication
   * @param {Element} element the video, or what it fills
   * @returns {() => void} ends it: everything comes again
   */
  observe(publication, element) {
    const stop = watchVisibility(element, (seen) => this.#membership.setSeen(publication, seen));
    return () => {
      stop();
      this.#membership.setSeen(publication, null);
    };
  }

  /**
   * Says something to everyone else, or to some. Reliable messages wait, up to 1 MiB, while there is no connection; lossy
   * ones do not.
   * @param {unknown} data bytes (`ArrayBuffer` or a view), or anything that JSON can say; at most about 60 KiB
   * @param {import('./messages.js').SendOptions} [options]
   * @returns {Promise<boolean>} once it is on its way; false: a lossy one that is not
   * @throws {SwitchyardError} `limit_exceeded` when it is too long, `too_many_requests` when too many wait, `closed`
   */
  sendMessage(data, options) {
    return this.#messages.send(data, options);
  }

  /**
   * Leaves for good. The tracks that were published stay open: they are the caller's.
   * @returns {Promise<void>} when the server knows, or after a second
   */
  async leave() {
    await this.#membership.leave();
  }

  /** Looks for a new network path; media goes on over the old one where that still works. */
  async restartIce() {
    await this.#membership.current?.connection.restartIce();
  }

  /** Offers again without any change; for tests and for diagnosis. */
  async renegotiate() {
    await this.#membership.negotiate();
  }

  /** After `disconnected`: tries again from the start. */
  reconnect() {
    this.#membership.reconnect();
  }

  /**
   * Figures per track; rates are since the last call.
   * @returns {Promise<import('./stats.js').RoomStats>}
   */
  async stats() {
    const { current, endpoints } = this.#membership;
    const all = await Promise.all(endpoints.map((endpoint) => this.#statsOf(endpoint, endpoint === current)));
    const none = new StatsReader().read(new Map(), () => null);
    return { transport: (all[0] ?? none).transport, tracks: all.flatMap(({ tracks }) => tracks) };
  }

  /**
   * The same connection as the server sees it (`GET …/stats` of docs/API.md).
   * @returns {Promise<import('./types.js').ServerStats | null>} null while there is no connection
   * @throws {SwitchyardError}
   */
  async serverStats() {
    return (await this.#membership.current?.api.stats()) ?? null;
  }

  /**
   * How the call was, 1 to 5 stars; best after `leave()`. The server keeps it with what it knows of the connection. A later
   * rating takes the place of an earlier one.
   * @param {{ stars: number, comment?: string }} rating
   * @returns {Promise<void>}
   * @throws {SwitchyardError}
   */
  async rate(rating) {
    await this.#membership.rate(rating);
  }

  /**
   * @param {import('./endpoint.js').Endpoint} endpoint
   * @param {boolean} publishes an older one sends the same again
   */
  async #statsOf(endpoint, publishes) {
    const { connection, statsReader } = endpoint;
    const report = await connection.peer.getStats();
    const { localParticipant } = this;
    return statsReader.read(/** @type {any} */ (report), (direction, mid) => {
      if (direction === 'in') {
        const found = this.#roster.byMid(endpoint, mid);
        if (!found) return null;
        const { participant, publication } = found;
        return { trackId: publication.id, participantId: participant.id, source: publication.source };
      }
      const publication = [...localParticipant.publications].find((each) => connection.midOf(each) === mid);
      if (!publication || !publishes) return null;
      return { trackId: publication.id, participantId: localParticipant.id, source: publication.source };
    });
  }

  /** What concerns neither membership nor roster. @param {import('./types.js').ServerEvent} event */
  #handle({ type, data }) {
    if (type === 'speakers.changed') this.#showSpeakers(this.#speakers.tell(data.speakers));
    else if (type === 'quality.changed') {
      for (const { participant_id: id, quality } of data.participants) this.#setQuality(id, quality);
    }
  }

  /** @param {string} id @param {import('./types.js').ConnectionQuality} quality */
  #setQuality(id, quality) {
    const participant = id === this.localParticipant.id ? this.localParticipant : this.participants.get(id);
    if (!participant || participant.quality === quality) return;
    participant.quality = quality;
    this.emit('qualityChanged', participant);
  }

  async #listen() {
    if (this.#speakers.isTold) return;
    const connection = this.#membership.current?.connection ?? null;
    const levels = await this.#levels.read(connection, this.participants.values(), this.localParticipant);
    this.#showSpeakers(this.#speakers.hear(levels, Date.now()));
  }

  /** @param {{ speaking: string[], changed: boolean }} speakers */
  #showSpeakers({ speaking, changed }) {
    if (!changed || this.connectionState === 'closed') return;
    const everyone = [this.localParticipant, ...this.participants.values()];
    for (const participant of everyone) participant.speaking = speaking.includes(participant.id);
    const active = speaking.flatMap((id) => everyone.filter((participant) => participant.id === id));
    this.emit('activeSpeakers', active);
  }
}
