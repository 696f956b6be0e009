/**
 * A room: join it, listen to its events, publish, leave. Repairs itself: an event transport that fails
 * is replaced by the next, a lost path gets an ICE restart, a lost endpoint or media server a rejoin.
 *
 * ```js
 * const room = await Room.join(link, { name: 'Ada', audio: true, video: true });
 * room.on('trackSubscribed', (track, publication, participant) => { … });
 * ```
 *
 * Whoever is there already is in `room.participants` when `join` resolves; events tell what changes
 * from then on.
 */

import { Api, ParticipantApi } from './api.js';
import { backoff, sleep } from './backoff.js';
import { Connection } from './connection.js';
import { deferred } from './deferred.js';
import { Emitter } from './emitter.js';
import { SwitchyardError, codeOf } from './errors.js';
import { LevelReader } from './levels.js';
import { parseJoinLink } from './link.js';
import { LocalParticipant } from './local-participant.js';
import { openTracks } from './media.js';
import { Roster } from './roster.js';
import { Speakers } from './speakers.js';
import { StatsReader } from './stats.js';
import { EventChannel } from './transport/index.js';

/** Tries of one rejoin before the person is asked (about half a minute with the back-off between). */
const REJOIN_ATTEMPTS = 8;
/** Rejoins in a row that never brought media. */
const FRUITLESS_REJOINS = 4;
/** An interruption that is told of this soon after a join may be the one that the join was for. */
const FRESH_JOIN_MS = 5000;
/** Events kept while a join is on its way; beyond it the oldest go, which the join reply covers best. */
const EARLY_EVENTS = 1024;
const SPEAKER_INTERVAL_MS = 200;
/** How long leaving waits for the server before the media connection is closed regardless. */
const LEAVE_PATIENCE_MS = 1000;

/** Refusals that no repetition changes, and what they say to the person. */
/** @type {Record<string, string>} */
const FINAL = {
  session_closed: 'session_closed',
  session_not_found: 'session_closed',
  unauthorized: 'unauthorized',
  forbidden: 'unauthorized',
};

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
 * @property {[Publication | LocalPublication, RemoteParticipant | LocalParticipant]} trackMuted
 * @property {[Publication | LocalPublication, RemoteParticipant | LocalParticipant]} trackUnmuted
 * @property {[LocalPublication]} localTrackPublished
 * @property {[LocalPublication]} localTrackUnpublished
 * @property {[LocalPublication]} localTrackReplaced
 * @property {[LocalPublication]} localTrackEnded its device went away
 * @property {[(RemoteParticipant | LocalParticipant)[]]} activeSpeakers loudest first
 * @property {[import('./types.js').ConnectionState]} connectionState
 * @property {[SwitchyardError]} disconnected gave up; `reconnect()` tries anew
 * @property {[import('./types.js').ServerEvent]} serverEvent every event as the server sent it, for diagnosis
 * @property {[string]} closed why: `left`, `removed`, `session_closed`, `taken_over`, `unauthorized`
 */

/** @extends {Emitter<RoomEvents & { [name: string]: any[] }>} */
export class Room extends Emitter {
  #api;
  #options;
  #roster;
  /** @type {import('./types.js').ConnectionState} */
  #state = 'connecting';
  /** @type {Connection | null} */
  #connection = null;
  /** @type {string | null} null while joining: not known yet */
  #endpointId = null;
  /** A join is on its way: events wait for its reply. @type {import('./types.js').ServerEvent[] | null} */
  #early = null;
  /** @type {EventChannel | null} */
  #channel = null;
  /** @type {RTCIceServer[]} */
  #iceServers = [];
  #joinedAt = 0;
  #closedBy = '';
  #epoch = -1;
  #recovering = false;
  #fruitless = 0;
  #joined = deferred();
  #statsReader = new StatsReader();
  #levels = new LevelReader();
  #speakers = new Speakers();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #speakerTimer;
  #pageHidden = () => this.#depart();

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
      for (const init of [...opened.inits, ...(options.tracks ?? [])]) room.localParticipant.add(init);
      await room.#enter({ signal: options.signal });
    } catch (error) {
      for (const track of opened.owned) track.stop();
      room.#close('failed');
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
    this.#options = options;
    this.#roster = new Roster({
      participantJoined: (participant) => this.emit('participantJoined', participant),
      participantLeft: (participant, reason) => this.emit('participantLeft', participant, reason),
      participantUpdated: (participant) => this.emit('participantUpdated', participant),
      trackPublished: (publication, participant) => this.emit('trackPublished', publication, participant),
      trackUnpublished: (publication, participant) => this.emit('trackUnpublished', publication, participant),
      trackSubscribed: (...args) => this.emit('trackSubscribed', ...args),
      trackUnsubscribed: (...args) => this.emit('trackUnsubscribed', ...args),
      trackMuted: (publication, participant) => this.emit('trackMuted', publication, participant),
      trackUnmuted: (publication, participant) => this.emit('trackUnmuted', publication, participant),
    });
    this.localParticipant = new LocalParticipant(options.name ?? '', {
      connection: () => (this.#endpointId === null ? null : this.#connection),
      negotiate: () => this.#negotiate(),
      sendMuted: (trackId, muted) => this.#sendMuted(trackId, muted),
      changed: (name, publication) => this.emit(name, publication),
      mutedChanged: (publication) =>
        this.emit(publication.muted ? 'trackMuted' : 'trackUnmuted', publication, this.localParticipant),
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
    return this.#state;
  }

  /** The event transport in use, null while it reconnects. */
  get transport() {
    return this.#channel?.transport ?? null;
  }

  /** Negotiations completed on the present connection, from either side. */
  get revision() {
    return this.#connection?.revision ?? 0;
  }

  /** The connection underneath, for diagnosis; another one after every rejoin. */
  get peerConnection() {
    return this.#connection?.peer ?? null;
  }

  /**
   * Leaves for good. The tracks that were published stay open: they are the caller's.
   * @returns {Promise<void>} when the server knows, or after a second
   */
  async leave() {
    if (this.#state === 'closed') return;
    const connection = this.#connection;
    this.#connection = null;
    const told = this.#api.participantId ? this.#api.leave().catch(() => {}) : Promise.resolve();
    this.#close('left');
    await Promise.race([told, sleep(LEAVE_PATIENCE_MS)]);
    connection?.close();
  }

  /** Looks for a new network path; media goes on over the old one where that still works. */
  async restartIce() {
    await this.#connection?.restartIce();
  }

  /** Offers again without any change; for tests and for diagnosis. */
  async renegotiate() {
    await this.#negotiate();
  }

  /** After `disconnected`: tries again from the start. */
  reconnect() {
    if (this.#state !== 'disconnected') return;
    this.#fruitless = 0;
    this.#recover();
  }

  /**
   * Figures per track; rates are since the last call.
   * @returns {Promise<import('./stats.js').RoomStats>}
   */
  async stats() {
    const connection = this.#connection;
    const report = connection ? await connection.peer.getStats() : new Map();
    return this.#statsReader.read(/** @type {any} */ (report), (direction, mid) => {
      if (direction === 'in') {
        const found = this.#roster.byMid(mid);
        if (!found) return null;
        const { participant, publication } = found;
        return { trackId: publication.id, participantId: participant.id, source: publication.source };
      }
      for (const publication of this.localParticipant.publications) {
        if (connection?.midOf(publication) !== mid) continue;
        return { trackId: publication.id, participantId: this.localParticipant.id, source: publication.source };
      }
      return null;
    });
  }

  // ---- joining and repairing ----

  /** @param {{ signal?: AbortSignal, attempts?: number }} options */
  async #enter(options) {
    // The reply names the endpoint that events are about, and its list of participants may be older than an
    // event that overtakes it: events that come meanwhile are applied after it.
    this.#early = [];
    try {
      await this.#join(options);
    } finally {
      const early = this.#early;
      this.#early = null;
      for (const event of early) this.#handle(event);
    }
  }

  /** @param {{ signal?: AbortSignal, attempts?: number }} options */
  async #join(options) {
    const connection = this.#newConnection();
    const { publications } = this.localParticipant;
    await connection.sync(publications);
    const offer = publications.size > 0 ? await connection.prepareFirst() : undefined;
    const reply = await this.#api.join(
      { name: this.#options.name, server_offers: offer === undefined, offer },
      options,
    );
    if (this.#state === 'closed') {
      // Left while the join was on its way. Not after a takeover: the participant is another's by now.
      if (this.#closedBy === 'left') this.#api.leave().catch(() => {});
      throw new SwitchyardError('closed', 'the room was left');
    }
    if (offer && !reply.answer) throw new SwitchyardError('out_of_step', 'the join reply has no answer');

    this.#startChannel(reply.endpoint_id);
    this.#iceServers = reply.ice_servers;
    this.#joinedAt = Date.now();
    this.localParticipant.id = reply.participant.id;
    this.localParticipant.name = reply.participant.name;
    this.#roster.replace(reply.participants);
    await connection.joined(reply);
    this.#endpointId = reply.endpoint_id;
    if (connection.closed) throw new SwitchyardError('endpoint_gone', 'lost while joining');

    if (!offer) this.#setState('connected');
    this.#speakerTimer ??= setInterval(() => this.#listen(), SPEAKER_INTERVAL_MS);
    this.#joined.resolve();
    this.#catchUp(connection);
  }

  #newConnection() {
    this.#connection?.close();
    this.#endpointId = null;
    this.#statsReader = new StatsReader();
    /** @type {Connection} */
    const connection = new Connection(this.#iceServers, this.#api, {
      stateChanged: (state) => {
        if (connection !== this.#connection) return;
        if (state === 'connected') this.#fruitless = 0;
        this.#setState(state === 'connected' ? 'connected' : 'reconnecting');
      },
      subscribed: (tracks) => {
        if (connection !== this.#connection) return;
        this.#roster.subscribed(tracks, (mid) => connection.trackByMid(mid));
      },
      published: (tracks) => this.#published(connection, tracks),
      lost: () => {
        if (connection === this.#connection) this.#recover();
      },
    });
    this.#connection = connection;
    return connection;
  }

  /** What was published, unpublished or muted while the join was on its way. @param {Connection} connection */
  async #catchUp(connection) {
    try {
      if (await connection.sync(this.localParticipant.publications)) await connection.negotiate();
      await this.localParticipant.syncAll();
    } catch {
      // Whoever published it waits for its own negotiation and learns why there.
    }
  }

  /** @param {Connection} connection @param {import('./types.js').TrackInfo[]} tracks */
  #published(connection, tracks) {
    for (const publication of this.localParticipant.publications) {
      const known = tracks.find((track) => track.mid === connection.midOf(publication));
      if (known) publication.id = known.id;
    }
  }

  /** Resolves when the server has what is published now, by an offer or by a rejoin that says it. */
  async #negotiate() {
    await this.#joined.promise;
    const connection = this.#connection;
    if (!connection) throw new SwitchyardError('closed', 'the room was left');
    try {
      await connection.sync(this.localParticipant.publications);
      await connection.negotiate();
    } catch (error) {
      if (connection === this.#connection && !connection.closed) throw error;
      await this.#joined.promise;
    }
  }

  /** @param {string} trackId @param {boolean} muted */
  async #sendMuted(trackId, muted) {
    try {
      await this.#api.setMuted(trackId, muted);
    } catch (error) {
      if (codeOf(error) !== 'endpoint_gone') throw error;
      this.#recover(); // the rejoin says what is muted
    }
  }

  /** Events belong to an endpoint: the channel of the one before is over. @param {string} endpointId */
  #startChannel(endpointId) {
    this.#channel?.close();
    const channel = new EventChannel(this.#api, endpointId, {
      transport: this.#options.transport,
      deliver: (event) => this.#deliver(event),
      ended: (reason) => {
        if (channel !== this.#channel) return;
        this.#channel = null;
        if (reason === 'session_closed' || reason === 'taken_over') this.#close(reason);
        else if (reason === 'gone') this.#close('removed');
        else this.#recover();
      },
    });
    this.#channel = channel;
    channel.start();
  }

  #connectionLost() {
    this.#connection?.close();
    this.#recover();
  }

  /** Joins again, after a random moment; gives up after a bound and says so. */
  async #recover() {
    if (this.#recovering || this.#state === 'closed') return;
    this.#recovering = true;
    if (this.#joined.settled) this.#joined = deferred();
    let last = new SwitchyardError('endpoint_gone', 'the connection was lost');
    this.#setState('reconnecting');
    this.#roster.unsubscribeAll();
    this.#connection?.close();
    this.#endpointId = null;
    this.#fruitless += 1;
    const { rejoinAttempts = REJOIN_ATTEMPTS } = this.#options;
    const attempts = this.#fruitless > FRUITLESS_REJOINS ? 0 : rejoinAttempts;
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      await sleep(backoff(attempt, { base: 300, limit: 6000 }));
      if (/** @type {string} */ (this.#state) === 'closed') return;
      try {
        this.localParticipant.renew();
        await this.#enter({ attempts: 1 });
        // An event that waited for the reply may have said that this one is gone, too.
        if (this.#connection?.closed) continue;
        this.#recovering = false;
        return;
      } catch (error) {
        if (/** @type {string} */ (this.#state) === 'closed') return;
        this.#connection?.close();
        if (error instanceof SwitchyardError) last = error;
        const code = codeOf(error);
        if (code === 'unauthorized' && this.#api.token !== this.#api.joinToken) {
          this.#api.token = this.#api.joinToken;
        } else if (code === 'participant_conflict') {
          // A link that is not personal may not take over who we were: come as someone new.
          this.#api.participantId = undefined;
        } else if (FINAL[code]) {
          this.#close(FINAL[code]);
          return;
        }
      }
    }
    this.#recovering = false;
    this.#setState('disconnected');
    this.emit('disconnected', last);
  }

  /** The page goes away: only what the browser still sends for us. */
  #depart() {
    if (this.#state === 'closed') return;
    if (this.#api.participantId) this.#api.leave({ keepalive: true }).catch(() => {});
    this.#close('left');
  }

  /** @param {string} reason */
  #close(reason) {
    if (this.#state === 'closed') return;
    this.#closedBy = reason;
    globalThis.removeEventListener?.('pagehide', this.#pageHidden);
    clearInterval(this.#speakerTimer);
    this.#channel?.close();
    this.#channel = null;
    this.#connection?.close();
    this.#connection = null;
    this.#roster.unsubscribeAll();
    this.#setState('closed');
    this.#joined.resolve();
    this.emit('closed', reason);
  }

  /** @param {import('./types.js').ConnectionState} state */
  #setState(state) {
    if (this.#state === state || this.#state === 'closed') return;
    this.#state = state;
    this.emit('connectionState', state);
  }

  // ---- events of the server ----

  /** @param {import('./types.js').ServerEvent} event */
  #deliver(event) {
    if (this.#state === 'closed') return;
    this.emit('serverEvent', event);
    if (event.type === 'command.completed') {
      this.#api.completed(event.data);
    } else if (event.type === 'session.closed') {
      this.#close('session_closed');
    } else if (this.#early) {
      this.#early.push(event);
      if (this.#early.length > EARLY_EVENTS) this.#early.shift();
    } else {
      this.#handle(event);
    }
  }

  /** @param {import('./types.js').ServerEvent} event */
  #handle({ type, data }) {
    if (this.#state === 'closed') return;
    if (typeof data?.endpoint_id === 'string') {
      // Another one's is a left-over of an earlier join.
      if (data.endpoint_id === this.#endpointId) this.#handleEndpoint(type, data);
    } else if (type === 'session.interrupted') {
      this.#interrupted(data.epoch);
    } else if ((data?.participant_id ?? data?.participant?.id) === this.#api.participantId) {
      this.#handleOwn(type, data);
    } else {
      this.#roster.handle(type, data);
    }
  }

  /** @param {string} type @param {any} data */
  #handleEndpoint(type, data) {
    if (type === 'offer') this.#connection?.handleServerOffer(data);
    else if (type === 'candidates') this.#connection?.handleCandidates(data.candidates);
    else if (type === 'endpoint.state' && data.state === 'closed') {
      // Somebody else has joined as us: going back in would throw them out in turn.
      if (data.reason === 'replaced') this.#close('taken_over');
      else this.#connectionLost();
    }
  }

  /** @param {string} type @param {any} data */
  #handleOwn(type, data) {
    if (type === 'participant.joined') {
      // Our own join, or someone with the same personal link: going back in would throw them out in turn.
      const { tracks } = data.participant;
      const foreign = (/** @type {import('./types.js').TrackInfo} */ { id }) => !this.localParticipant.hasIssued(id);
      if (tracks.length > 0 && tracks.every(foreign)) this.#close('taken_over');
    } else if (type === 'track.muted' || type === 'track.unmuted') {
      if (data.by_admin) this.localParticipant.mutedByAdmin(data.track_id, type === 'track.muted');
    } else if (type === 'participant.left') {
      if (data.reason === 'removed' || data.reason === 'session_closed') this.#close(data.reason);
      else if (data.reason === 'connection_lost') this.#doubt();
    }
  }

  /** @param {number} epoch */
  #interrupted(epoch) {
    if (epoch <= this.#epoch) return;
    this.#epoch = epoch;
    this.#doubt();
  }

  /**
   * The endpoint is said to be gone. Right after a join that may be old news: then a request finds out,
   * because the server answers `endpoint_gone` if it is true.
   */
  #doubt() {
    if (this.#endpointId === null) return;
    const connection = this.#connection;
    if (!connection || Date.now() - this.#joinedAt > FRESH_JOIN_MS) this.#connectionLost();
    else connection.probe();
  }

  async #listen() {
    const connection = this.#connection;
    if (!connection || connection.closed) return;
    const levels = await this.#levels.read(connection, this.participants.values(), this.localParticipant);
    const { speaking, changed } = this.#speakers.update(levels, Date.now());
    if (!changed || this.#state === 'closed') return;
    const everyone = [this.localParticipant, ...this.participants.values()];
    for (const participant of everyone) participant.speaking = speaking.includes(participant.id);
    const active = speaking.flatMap((id) => everyone.filter((participant) => participant.id === id));
    this.emit('activeSpeakers', active);
  }
}
