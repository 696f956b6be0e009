/**
 * Being a member of the session, whatever happens to the endpoints: joins, joins again when the endpoint or its
 * media server is lost, moves to another media server before the old one goes, and knows which endpoint counts.
 *
 * ```text
 *   joining ──▶ current ──lost──▶ (none) ──▶ joining …          after a random moment, a bounded number of times
 *                  │
 *                  └─session.moving──▶ joining ──▶ current      the old one is kept until the new one carries
 *                                      old: retiring ──▶ closed  everything (handover.js)
 * ```
 *
 * Events of the session come by every endpoint of ours; those of the newest count, and the older ones' are only about
 * themselves.
 */

import { backoff, sleep } from './backoff.js';
import { deferred } from './deferred.js';
import { Endpoint } from './endpoint.js';
import { SwitchyardError, codeOf } from './errors.js';
import { Handover } from './handover.js';
import { Wishes } from './wishes.js';

/** Tries of one rejoin before the person is asked (about half a minute with the back-off between), */
const REJOIN_ATTEMPTS = 8;
/** or, when the server takes its time with each, after this long. Milliseconds. */
const REJOIN_PATIENCE_MS = 40_000;
/** No try is shorter. Milliseconds. */
const LEAST_PATIENCE_MS = 2000;
/** Rejoins in a row that never brought media. */
const FRUITLESS_REJOINS = 4;
/** Everyone who loses a media server loses it at once: they come back spread over this long. Milliseconds. */
const SPREAD_MS = 100;
const SPREAD_PER_PARTICIPANT_MS = 40;
const LONGEST_SPREAD_MS = 3000;
/** An interruption that is told of this soon after a join may be the one that the join was for. Milliseconds. */
const FRESH_JOIN_MS = 5000;
/** Events kept while a join is on its way; beyond it the oldest go. */
const HELD_EVENTS = 1024;
/** How long the old endpoint may be kept when nobody said. Milliseconds. */
const KEEP_MS = 10_000;
/** How long leaving waits for the server before the media connection is closed regardless. */
const LEAVE_PATIENCE_MS = 1000;
/** An endpoint that is in order for so long was worth its join. Milliseconds. */
const STEADY_MS = 10_000;
/** The server may still execute a join for this long after it was sent. Milliseconds. */
const COMMAND_LIFE_MS = 65_000;

/** Refusals that no repetition changes, and what they say to the person. */
/** @type {Record<string, string>} */
const FINAL = {
  session_closed: 'session_closed',
  session_not_found: 'session_closed',
  unauthorized: 'unauthorized',
  token_revoked: 'unauthorized',
  forbidden: 'unauthorized',
};

/**
 * @typedef {object} MembershipHooks
 * @property {(state: import('./types.js').ConnectionState) => void} stateChanged
 * @property {(cause: import('./types.js').InterruptionCause) => void} interrupted media stopped, and is being repaired
 * @property {(error: SwitchyardError) => void} disconnected gave up
 * @property {(reason: string) => void} closed for good
 * @property {() => void} joined another endpoint counts now
 * @property {(event: import('./types.js').ServerEvent) => void} serverEvent as it came
 * @property {(data: any) => void} message the event of that name
 * @property {import('./data-channels.js').DataChannelHooks} data of every connection
 */

/** @typedef {import('./types.js').ServerEvent} ServerEvent */

export class Membership {
  #api;
  #roster;
  #local;
  #options;
  #hooks;
  /** @type {import('./types.js').ConnectionState} */
  #state = 'connecting';
  /** The one to publish on; null while there is none. @type {Endpoint | null} */
  #current = null;
  /** Older ones that still carry media. @type {Set<Endpoint>} */
  #retiring = new Set();
  /** A join is on its way for it. @type {Endpoint | null} */
  #joining = null;
  /** Whose events of the session count: the current one's, or the last one's. @type {Endpoint | null} */
  #listening = null;
  /** Events of the session while a join is on its way: the new endpoint brings them, too. @type {ServerEvent[] | null} */
  #held = null;
  /** The move that was asked for last. */
  /** @type {{ epoch: number, from: Endpoint, until: number, awaited: Set<string> } | null} */
  #move = null;
  /** When each participant joined last, of those whose join we were told of. @type {Map<string, number>} */
  #cameAt = new Map();
  /** @type {Handover | null} */
  #handover = null;
  /** The current endpoint has to be replaced, but its media still flows. */
  #renewing = false;
  #rejoining = false;
  #wishes = new Wishes();
  #pause = new AbortController();
  /** @type {RTCIceServer[]} */
  #iceServers = [];
  #joinedAt = 0;
  #lostAt = 0;
  #closedBy = '';
  #fruitless = 0;
  /** Endpoints in a row that were lost soon after their join. */
  #hasty = 0;
  /** Until then a join of ours that had no reply may take effect. */
  #uncertainUntil = 0;
  #joined = deferred();

  /**
   * @param {import('./participant-api.js').ParticipantApi} api
   * @param {{ roster: import('./roster.js').Roster, local: import('./local-participant.js').LocalParticipant }} people
   * @param {import('./types.js').JoinOptions} options
   * @param {MembershipHooks} hooks
   */
  constructor(api, { roster, local }, options, hooks) {
    this.#api = api;
    this.#roster = roster;
    this.#local = local;
    this.#options = options;
    this.#hooks = hooks;
  }

  get state() {
    return this.#state;
  }

  get current() {
    return this.#current;
  }

  /** All that are open, newest first. */
  get endpoints() {
    return [...(this.#current ? [this.#current] : []), ...[...this.#retiring].reverse()];
  }

  /** @param {{ signal?: AbortSignal }} options */
  async join(options) {
    await this.#enter(options);
  }

  /** After `disconnected`: tries again from the start. */
  reconnect() {
    if (this.#state !== 'disconnected') return;
    this.#fruitless = 1;
    this.#lostAt = performance.now();
    this.#setState('reconnecting');
    this.#rejoin();
  }

  /** Resolves when the server has what is published now, by an offer or by a rejoin that says it. */
  async negotiate() {
    for (const old of this.#retiring) await old.connection.sync(this.#local.publications);
    await this.#joined.promise;
    const endpoint = this.#current;
    if (!endpoint) throw new SwitchyardError('closed', 'the room was left');
    try {
      await endpoint.connection.sync(this.#local.publications);
      await endpoint.connection.negotiate();
    } catch (error) {
      if (endpoint === this.#current && !this.#renewing) throw error;
      await this.#joined.promise;
    }
  }

  /** @param {string} trackId @param {boolean} muted */
  async sendMuted(trackId, muted) {
    const endpoint = this.#current;
    try {
      await endpoint?.api.setMuted(trackId, muted);
    } catch (error) {
      if (codeOf(error) !== 'endpoint_gone' || !endpoint) throw error;
      this.#lost(endpoint, false); // the rejoin says what is muted
    }
  }

  /**
   * @param {import('./publication.js').Publication} publication
   * @param {import('./types.js').Quality} quality
   */
  async setQuality(publication, quality) {
    this.#wishes.setByHand(publication, quality);
    if (this.#current) await this.#wishes.tell(this.#current, publication);
  }

  /**
   * @param {import('./publication.js').Publication} publication
   * @param {import('./wishes.js').Seen | null} seen
   */
  setSeen(publication, seen) {
    this.#wishes.setSeen(publication, seen);
    if (this.#current && publication.track) this.#wishes.tell(this.#current, publication).catch(() => {});
  }

  /** What is wanted of what an endpoint has subscribed to. @param {Endpoint} endpoint @param {string[]} trackIds */
  #tellWishes(endpoint, trackIds) {
    for (const publication of this.#roster.publications(trackIds)) {
      this.#wishes.tell(endpoint, publication).catch(() => {}); // gone again: it is told the next one
    }
  }

  /** @param {{ stars: number, comment?: string }} rating of the connection that we have or had last */
  async rate(rating) {
    if (!this.#listening) throw new SwitchyardError('closed', 'the room was never joined');
    await this.#listening.api.rate(rating);
  }

  /**
   * Leaves for good. The connections stay open for that long: one that ends by itself counts as lost.
   * @param {{ keepalive?: boolean }} [options]
   * @returns {Promise<void>} when the server knows, or after a second
   */
  async leave(options) {
    if (this.#state === 'closed') return;
    const told = this.#api.participantId ? this.#api.leave(options).catch(() => {}) : Promise.resolve();
    const open = this.#end('left');
    await Promise.race([told, sleep(LEAVE_PATIENCE_MS)]);
    for (const endpoint of open) endpoint.close();
  }

  /** @param {string} reason */
  close(reason) {
    this.#api.stop();
    if (this.#state === 'closed') return;
    for (const endpoint of this.#end(reason)) endpoint.close();
  }

  /** @param {string} reason @returns {Set<Endpoint>} what is still open */
  #end(reason) {
    const open = new Set(this.endpoints);
    if (this.#listening) open.add(this.#listening);
    if (this.#joining) open.add(this.#joining);
    for (const endpoint of open) endpoint.silence();
    this.#closedBy = reason;
    this.#handover?.stop();
    this.#pause.abort();
    this.#current = null;
    this.#retiring.clear();
    this.#roster.unsubscribeAll();
    this.#setState('closed');
    this.#joined.resolve();
    this.#hooks.closed(reason);
    return open;
  }

  // ---- joining ----

  /** @param {{ signal?: AbortSignal, attempts?: number, patience?: number }} options */
  async #enter(options) {
    const endpoint = this.#newEndpoint();
    this.#joining = endpoint;
    this.#held = [];
    try {
      const { name, lastN, maxBitrate } = this.#options;
      const reply = await endpoint.join(this.#local.publications, { name, lastN, maxBitrate, ...options });
      if (this.#state === 'closed') {
        // Left while the join was on its way. Not after a takeover: the participant is another's by now.
        if (this.#closedBy === 'left') this.#api.leave().catch(() => {});
        throw new SwitchyardError('closed', 'the room was left');
      }
      this.#adopt(endpoint, reply);
    } catch (error) {
      endpoint.close();
      this.#joining = null;
      if (['network', 'timeout', 'expired'].includes(codeOf(error))) this.#uncertainUntil = Date.now() + COMMAND_LIFE_MS;
      const held = this.#held ?? [];
      this.#held = null;
      for (const event of held) this.#handleSession(event);
      throw error;
    }
    this.#catchUp(endpoint);
  }

  /** From here on this is the endpoint that counts. @param {Endpoint} endpoint @param {import('./types.js').JoinReply} reply */
  #adopt(endpoint, reply) {
    const before = this.#current;
    const other = reply.participant.id !== this.#local.id;
    this.#joining = null;
    this.#held = null; // the new endpoint's queue was there before the reply's list was made
    this.#renewing = false;
    this.#joinedAt = Date.now();
    this.#iceServers = reply.ice_servers;
    this.#local.id = reply.participant.id;
    this.#local.name = reply.participant.name;
    this.#local.quality = 'excellent'; // of a new connection nothing is known yet
    this.#hooks.joined();
    if (this.#listening !== before) this.#listening?.close();
    this.#listening = endpoint;
    this.#current = endpoint;
    if (before) this.#retiring.add(before);
    this.#local.published(endpoint.connection, reply.tracks);
    this.#roster.replace(reply.participants);
    this.#roster.resumeAll(); // what was suspended or held was so on the old one
    endpoint.listen();
    // The ones that we were under another name are nobody's now.
    if (other) for (const old of [...this.#retiring]) this.#retire(old);
    if (this.#retiring.size > 0) this.#handOver(endpoint);
    this.#joined.resolve();
    this.#hooks.data.writable();
    this.#showState();
    if (endpoint.isLost) this.#lost(endpoint, true);
  }

  /** @param {Endpoint} to */
  #handOver(to) {
    this.#handover?.stop();
    this.#handover = new Handover({
      roster: this.#roster,
      to,
      from: this.#retiring,
      awaited: this.#move?.awaited ?? new Set(),
      until: this.#move?.until ?? performance.now() + KEEP_MS,
      done: () => {
        this.#move = null;
        for (const old of [...this.#retiring]) this.#retire(old);
      },
    });
  }

  /** What was published, unpublished or muted while the join was on its way. @param {Endpoint} endpoint */
  async #catchUp({ connection }) {
    try {
      if (await connection.sync(this.#local.publications)) await connection.negotiate();
      await this.#local.syncAll();
    } catch {
      // Whoever published it waits for its own negotiation and learns why there.
    }
  }

  #newEndpoint() {
    const { relayOnly, transport } = this.#options;
    const options = { iceServers: this.#iceServers, relayOnly, transport };
    return new Endpoint(this.#api, options, {
      changed: (endpoint) => {
        if (endpoint === this.#current && endpoint.isUp) this.#fruitless = 0;
        this.#showState();
      },
      subscribed: (endpoint, tracks) => {
        if (!this.endpoints.includes(endpoint)) return;
        this.#roster.subscribed(endpoint, tracks, (mid) => endpoint.connection.receiverOf(mid));
        this.#tellWishes(endpoint, tracks.map(({ track_id: id }) => id));
      },
      published: (endpoint, tracks) => {
        if (endpoint === this.#current) this.#local.published(endpoint.connection, tracks);
      },
      identify: (publication) => this.#local.identify(publication),
      data: this.#hooks.data,
      lost: (endpoint, _, ended) => this.#lost(endpoint, ended),
      deliver: (endpoint, event) => this.#deliver(endpoint, event),
      silenced: (endpoint, reason) => this.#silenced(endpoint, reason),
    });
  }

  // ---- losing, joining again, moving ----

  /**
   * An endpoint cannot be used any more. While its media flows all the same, it is kept until another has
   * taken its place: nothing is to be gained from silence.
   * @param {Endpoint} endpoint
   * @param {boolean} ended its media, too
   * @param {import('./types.js').InterruptionCause} [cause]
   */
  #lost(endpoint, ended, cause = 'connection_lost') {
    if (this.#retiring.has(endpoint)) {
      if (ended || !endpoint.connection.isFlowing) this.#retire(endpoint);
      return;
    }
    if (endpoint !== this.#current) return;
    this.#renewing = true;
    this.#hasty = Date.now() - this.#joinedAt < STEADY_MS ? this.#hasty + 1 : 0;
    if (this.#joined.settled) this.#joined = deferred();
    if (ended || !endpoint.connection.isFlowing) {
      this.#current = null; // its events go on, in #listening
      this.#roster.drop(endpoint); // first: whoever wants to keep the last picture can
      endpoint.hangUp();
      this.#fruitless += 1;
      this.#lostAt = performance.now();
      this.#pause.abort(); // the pause was that of a move
      if (this.#retiring.size === 0) this.#hooks.interrupted(cause);
      this.#showState();
    } else {
      endpoint.connection.giveUp();
    }
    this.#rejoin();
  }

  /** @param {Endpoint} endpoint one that nothing is expected of any more */
  #retire(endpoint) {
    this.#retiring.delete(endpoint);
    this.#roster.drop(endpoint);
    endpoint.close();
    this.#hooks.data.writable(); // nothing waits for it any more
    this.#showState();
  }

  /** Joins again until there is an endpoint that will do; gives up after a bound and says so. */
  async #rejoin() {
    if (this.#rejoining || this.#state === 'closed') return;
    this.#rejoining = true;
    let last = new SwitchyardError('endpoint_gone', 'the connection was lost');
    let failures = 0;
    let pause = this.#spread() + (this.#hasty > 1 ? backoff(this.#hasty, { base: 200, limit: 6000 }) : 0);
    while (this.#current === null || this.#renewing || this.#isToMove()) {
      await this.#wait(pause);
      if (/** @type {string} */ (this.#state) === 'closed') return;
      const { rejoinAttempts = REJOIN_ATTEMPTS, rejoinPatience = REJOIN_PATIENCE_MS } = this.#options;
      const patience = this.#current === null ? this.#lostAt + rejoinPatience - performance.now() : rejoinPatience;
      const attempts = this.#fruitless > FRUITLESS_REJOINS ? 0 : rejoinAttempts;
      if (this.#current === null && (failures >= attempts || (failures > 0 && patience < 0))) {
        this.#rejoining = false;
        for (const old of [...this.#retiring]) this.#retire(old);
        this.#setState('disconnected');
        this.#hooks.disconnected(last);
        return;
      }
      try {
        await this.#enter({ attempts: 1, patience: Math.max(LEAST_PATIENCE_MS, patience) });
        pause = 0;
      } catch (error) {
        if (/** @type {string} */ (this.#state) === 'closed') return;
        if (error instanceof SwitchyardError) last = error;
        if (!this.#passes(codeOf(error))) return;
        pause = backoff(failures, { base: 300, limit: 6000 });
        failures += 1;
      }
    }
    this.#rejoining = false;
  }

  #spread() {
    const longest = SPREAD_MS + SPREAD_PER_PARTICIPANT_MS * this.#roster.participants.size;
    return Math.random() * Math.min(LONGEST_SPREAD_MS, longest);
  }

  /** Whether a refused join is worth another try; closes the room when not. @param {string} code */
  #passes(code) {
    if (code === 'unauthorized' && this.#api.token !== this.#api.joinToken) {
      this.#api.token = this.#api.joinToken;
    } else if (code === 'participant_conflict') {
      // A link that is not personal may not take over who we were: come as someone new.
      this.#api.participantId = undefined;
    } else if (FINAL[code]) {
      this.close(FINAL[code]);
      return false;
    }
    return true;
  }

  /** @param {number} milliseconds */
  async #wait(milliseconds) {
    if (milliseconds === 0) return;
    if (this.#pause.signal.aborted) this.#pause = new AbortController();
    const { signal } = this.#pause;
    await sleep(milliseconds, signal);
    // Cut short because media stopped meanwhile: that many others are about to come, too.
    if (signal.aborted && this.#state !== 'closed') await sleep(Math.random() * SPREAD_MS);
  }

  #isToMove() {
    const move = this.#move;
    return move !== null && move.from === this.#current && performance.now() < move.until;
  }

  /**
   * The media server will be gone by the deadline: joins again, at another, while this one still works.
   * @param {Endpoint} endpoint
   * @param {{ epoch: number, deadline: number }} data `deadline`: by the server's clock
   * @param {number} sentAt by the same clock
   */
  #moving(endpoint, { epoch, deadline }, sentAt) {
    const known = this.#move?.from === endpoint ? this.#move.epoch : endpoint.epoch;
    if (endpoint !== this.#current || epoch <= known) return;
    const remaining = Math.max(0, deadline - sentAt);
    const others = [...this.#roster.participants.values()].filter(({ state }) => state !== 'disconnected');
    // Who came just now may have come to the new place already, and faster than this event.
    const settled = others.filter(({ id }) => Date.now() - (this.#cameAt.get(id) ?? 0) > FRESH_JOIN_MS);
    const awaited = new Set(settled.map(({ id }) => id));
    this.#move = { epoch, from: endpoint, until: performance.now() + remaining, awaited };
    this.#rejoin();
  }

  // ---- events of the server ----

  /** @param {Endpoint} endpoint @param {import('./transport/index.js').ChannelEnd} reason */
  #silenced(endpoint, reason) {
    if (endpoint !== this.#listening) return;
    if (reason === 'session_closed' || reason === 'taken_over') this.close(reason);
    else this.#lost(endpoint, false);
  }

  /** @param {Endpoint} endpoint whose queue brought it @param {ServerEvent} event */
  #deliver(endpoint, event) {
    if (this.#state === 'closed') return;
    const { type, data } = event;
    const own = typeof data?.endpoint_id === 'string';
    if (own || endpoint === this.#listening) this.#hooks.serverEvent(event);
    if (type === 'participant.joined') {
      this.#move?.awaited.delete(data.participant.id);
      this.#cameAt.set(data.participant.id, Date.now());
    } else if (type === 'participant.left') {
      this.#move?.awaited.delete(data.participant_id);
      this.#cameAt.delete(data.participant_id);
    }
    if (type === 'message') this.#hooks.message(data); // whichever endpoint brings it: told once by its id
    else if (type === 'command.completed') endpoint.api.completed(data);
    else if (type === 'session.closed') this.close('session_closed');
    else if (own && data.endpoint_id === endpoint.id) this.#handleEndpoint(endpoint, type, data);
    else if (own || endpoint !== this.#listening) return; // a left-over, or the newer endpoint brings it
    else if (type === 'session.interrupted') this.#interrupted(endpoint, data.epoch);
    else if (type === 'session.moving') this.#moving(endpoint, data, event.time);
    else this.#handleLater(event);
  }

  /** @param {Endpoint} endpoint @param {string} type @param {any} data */
  #handleEndpoint(endpoint, type, data) {
    if (type === 'offer') endpoint.connection.handleServerOffer(data);
    else if (type === 'candidates') endpoint.connection.handleCandidates(data.candidates);
    else if (type === 'track.refused') this.#roster.refused(data.track_id, data.mime_type);
    else if (type === 'track.demand') endpoint.connection.setDemand(data.track_id, data.encodings);
    else if (type === 'video.suspended' || type === 'video.resumed') {
      if (endpoint === this.#current) this.#roster.suspended(data.tracks, type === 'video.suspended');
    }
    else if (type === 'video.held' || type === 'video.released') {
      if (endpoint === this.#current) this.#roster.held(data.tracks, type === 'video.held');
    }
    else if (type === 'endpoint.state' && data.state === 'closed') {
      const ours = this.#joining !== null || Date.now() < this.#uncertainUntil;
      // Someone with the same personal link: going back in would throw them out in turn.
      if (endpoint === this.#current && data.reason === 'replaced' && !ours) this.close('taken_over');
      else this.#lost(endpoint, true);
    }
  }

  /** @param {Endpoint} endpoint @param {number} epoch */
  #interrupted(endpoint, epoch) {
    if (endpoint === this.#current && epoch > endpoint.epoch) this.#doubt(endpoint, 'media_server_lost');
    else if (this.endpoints.length === 0) this.#hooks.interrupted('media_server_lost'); // we were faster; now it is known why
  }

  /**
   * The endpoint is said to be gone. That may be old news right after a join, or about another media server
   * than the one whose packets come in: then a question finds out.
   * @param {Endpoint} endpoint
   * @param {import('./types.js').InterruptionCause} [cause]
   */
  async #doubt(endpoint, cause) {
    const fresh = endpoint.epoch < 0 && Date.now() - this.#joinedAt < FRESH_JOIN_MS;
    if ((fresh || endpoint.connection.isFlowing) && (await endpoint.api.probe()) === 'there') return;
    if (endpoint === this.#current) this.#lost(endpoint, false, cause);
  }

  /**
   * The list of a join reply may be older than an event that overtakes it, and the new endpoint brings everything
   * since the list was made: what comes meanwhile waits for the join to succeed or fail.
   * @param {ServerEvent} event
   */
  #handleLater(event) {
    if (!this.#held) {
      this.#handleSession(event);
      return;
    }
    this.#held.push(event);
    if (this.#held.length > HELD_EVENTS) this.#held.shift();
  }

  /** @param {ServerEvent} event */
  #handleSession({ type, data }) {
    if (this.#state === 'closed') return;
    if ((data?.participant_id ?? data?.participant?.id) === this.#api.participantId) this.#handleOwn(type, data);
    else this.#roster.handle(type, data);
  }

  /** @param {string} type @param {any} data */
  #handleOwn(type, data) {
    if (type === 'participant.joined') {
      const { tracks } = data.participant;
      const foreign = (/** @type {import('./types.js').TrackInfo} */ { id }) => !this.#local.hasIssued(id);
      if (tracks.length > 0 && tracks.every(foreign)) this.close('taken_over');
    } else if (type === 'track.muted' || type === 'track.unmuted') {
      if (data.by_admin) this.#local.mutedByAdmin(data.track_id, type === 'track.muted');
    } else if (type === 'participant.left') {
      if (data.reason === 'removed' || data.reason === 'session_closed') this.close(data.reason);
      else if (data.reason === 'connection_lost' && this.#current) this.#doubt(this.#current);
    }
  }

  // ---- what is shown ----

  #showState() {
    if (this.#state === 'disconnected' && this.#current === null) return;
    if (this.endpoints.some(({ isUp }) => isUp)) this.#setState('connected');
    else if (this.#state !== 'connecting' || this.#current === null) this.#setState('reconnecting');
  }

  /** @param {import('./types.js').ConnectionState} state */
  #setState(state) {
    if (this.#state === state || this.#state === 'closed') return;
    this.#state = state;
    this.#hooks.stateChanged(state);
  }
}
