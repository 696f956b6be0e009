/**
 * The calls of one participant: joining and leaving (`ParticipantApi`), and those about one of its endpoints
 * (`EndpointApi`), of which it has two for a while when it moves from one media server to another.
 */

import { sleep } from './backoff.js';
import { SwitchyardError } from './errors.js';
import { newId } from './ids.js';

/** A command's own deadline on the server is 60 s: nothing completes later than that. */
const COMPLETION_TIMEOUT_MS = 65_000;
/** Results of commands that came before their 202 did. */
const EARLY_RESULTS = 64;
/** A probe that has no answer by then has none to give. Seconds. */
const PROBE_SECONDS = 1;
/** Nor has one whose answer is still on its way then. Milliseconds. */
const PROBE_TIMEOUT_MS = 1500;
/** A token is renewed when this part of its life has passed. */
const RENEWED_AT = 0.8;
/** Not sooner than that, whatever our clock says; and again after that when it could not be. Milliseconds. */
const LEAST_RENEWAL_MS = 60_000;
/** The longest that a timer can wait. Milliseconds. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** An endpoint that moves has two for a while. */
const ENDPOINTS = 2;
/** Says "no more candidates", which a server that never checks paths itself (ICE lite) may hear at any time. */
const NO_CANDIDATE = { candidate: '', sdpMid: '0', sdpMLineIndex: 0 };

/** Knows who we are: session, participant, token. */
export class ParticipantApi {
  /**
   * @param {import('./api.js').Api} api
   * @param {string} sessionId
   * @param {string} joinToken
   */
  constructor(api, sessionId, joinToken) {
    this.api = api;
    this.sessionId = sessionId;
    this.joinToken = joinToken;
    /** @type {string | undefined} */
    this.participantId = undefined;
    /** The participant token, once joined. */
    this.token = joinToken;
    /** Whose destinations are renewed with the token, the latest last. @type {EndpointApi[]} */
    this.endpoints = [];
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.renewal = undefined;
  }

  /** The path of this participant. */
  get path() {
    return `/v1/sessions/${encodeURIComponent(this.sessionId)}/participants/${encodeURIComponent(this.participantId ?? '')}`;
  }

  /**
   * Joins, or joins again as the same participant. A join has no event stream yet that could bring a
   * late result, so a 202 is answered by asking again with the same key.
   * @param {{ endpoint_id: string, name?: string, server_offers?: boolean, offer?: { sdp: string, tracks: import('./types.js').TrackDescription[] } }} body
   * @param {{ signal?: AbortSignal, attempts?: number, patience?: number }} [options] `patience`: milliseconds after
   *   which it is given up although the server may still get to it
   * @returns {Promise<import('./types.js').JoinReply>}
   */
  async join(body, { signal, attempts, patience = COMPLETION_TIMEOUT_MS } = {}) {
    const path = `/v1/sessions/${encodeURIComponent(this.sessionId)}/participants`;
    const key = newId('cmd');
    const full = this.participantId ? { ...body, participant_id: this.participantId } : body;
    const deadline = Date.now() + patience;
    for (;;) {
      const reply = await this.api.request('POST', path, { body: full, token: this.token, key, signal, attempts });
      if (reply.status !== 202) {
        this.participantId = reply.body.participant.id;
        this.token = reply.body.token;
        this.#renewLater((reply.body.token_expires_at - Date.now()) * RENEWED_AT);
        return reply.body;
      }
      if (Date.now() > deadline) throw new SwitchyardError('expired', 'the join was not completed in time');
      await sleep(250, signal);
    }
  }

  /**
   * Another token before this one expires, and destinations sealed by the key that signs now.
   */
  async renew() {
    try {
      const bodies = this.endpoints.length > 0 ? this.endpoints.map(({ destination }) => ({ destination })) : [{}];
      let expiresAt = 0;
      for (const [index, body] of bodies.entries()) {
        const reply = await this.api.request('POST', `${this.path}/token`, { body, token: this.token });
        this.token = reply.body.token;
        expiresAt = reply.body.token_expires_at;
        const endpoint = this.endpoints[index];
        if (endpoint && reply.body.destination) endpoint.destination = reply.body.destination;
      }
      if (this.renewal !== undefined) this.#renewLater((expiresAt - Date.now()) * RENEWED_AT);
    } catch (error) {
      // Who is not there any more has no token to renew; a join makes one.
      const over = error instanceof SwitchyardError && error.status >= 400 && error.status < 500;
      if (this.renewal !== undefined && (!over || error.status === 429)) this.#renewLater(LEAST_RENEWAL_MS);
    }
  }

  /** Leaves nothing running. */
  stop() {
    clearTimeout(this.renewal);
    this.renewal = undefined;
  }

  /** @param {number} milliseconds */
  #renewLater(milliseconds) {
    clearTimeout(this.renewal);
    const wait = Math.min(Math.max(milliseconds || 0, LEAST_RENEWAL_MS), LONGEST_TIMER_MS);
    this.renewal = setTimeout(() => this.renew(), wait);
    // In Node.js it would keep the process.
    /** @type {any} */ (this.renewal).unref?.();
  }

  /**
   * Leaves. With `keepalive` the browser sends it even when the page is going away.
   * @param {{ keepalive?: boolean }} [options]
   */
  async leave({ keepalive = false } = {}) {
    this.stop();
    await this.api.request('DELETE', this.path, { token: this.token, keepalive, attempts: keepalive ? 1 : 3 });
  }
}

/** Knows one endpoint's id and destination, and waits out a 202. */
export class EndpointApi {
  #participant;
  /** Opaque, from the join reply. @type {string | undefined} */
  destination;
  /** @type {Map<string, (event: { status: number, result: any }) => void>} */
  #waiting = new Map();
  /** @type {Map<string, { status: number, result: any }>} */
  #early = new Map();

  /**
   * @param {ParticipantApi} participant
   * @param {string} [id] made here, before the join
   */
  constructor(participant, id = newId('end')) {
    this.#participant = participant;
    this.id = id;
  }

  get api() {
    return this.#participant.api;
  }

  get token() {
    return this.#participant.token;
  }

  /** @param {import('./types.js').JoinReply} reply */
  joined(reply) {
    this.id = reply.endpoint_id;
    this.destination = reply.destination;
    const endpoints = this.#participant.endpoints;
    endpoints.push(this);
    if (endpoints.length > ENDPOINTS) endpoints.shift();
  }

  /**
   * Where this endpoint's events are, as a path with its query.
   * @param {'events' | 'events/ws'} route
   * @param {Record<string, string>} [query]
   */
  eventsPath(route, query = {}) {
    return `${this.#participant.path}/${route}?${new URLSearchParams({ endpoint: this.id, ...query })}`;
  }

  /**
   * @param {{ sdp: string, revision: number, tracks: import('./types.js').TrackDescription[] }} body
   * @returns {Promise<import('./types.js').Answer & { tracks: import('./types.js').TrackInfo[] }>}
   */
  offer(body) {
    return this.#command('POST', '/offer', body);
  }

  /** @param {import('./types.js').Answer} body */
  answer(body) {
    return this.#command('POST', '/answer', body);
  }

  /** @param {RTCIceCandidateInit[]} candidates */
  candidates(candidates) {
    return this.#command('POST', '/candidates', { candidates });
  }

  /**
   * Asks something harmless, once: is this endpoint still there?
   * @returns {Promise<'there' | 'gone' | 'unknown'>} `unknown`: no answer, or not from the media server
   */
  async probe() {
    const body = { candidates: [NO_CANDIDATE], destination: this.destination };
    const { path, token } = this.#participant;
    const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS);
    try {
      const options = { body, token, attempts: 1, wait: PROBE_SECONDS, signal };
      const reply = await this.api.request('POST', `${path}/candidates`, options);
      return reply.status === 202 ? 'unknown' : 'there';
    } catch (error) {
      return error instanceof SwitchyardError && error.code === 'endpoint_gone' ? 'gone' : 'unknown';
    }
  }

  /**
   * @param {string} trackId
   * @param {boolean} muted
   * @returns {Promise<import('./types.js').TrackInfo>}
   */
  setMuted(trackId, muted) {
    return this.#command('PATCH', `/tracks/${encodeURIComponent(trackId)}`, { muted });
  }

  /**
   * @param {string} trackId
   * @param {import('./types.js').Quality} quality
   * @returns {Promise<void>}
   */
  setQuality(trackId, { paused, maxEncoding, maxSpatial, maxTemporal, priority, shown }) {
    const layers = { max_encoding: maxEncoding, max_spatial: maxSpatial, max_temporal: maxTemporal };
    const body = { paused, ...layers, priority, shown };
    return this.#command('PATCH', `/subscriptions/${encodeURIComponent(trackId)}`, body);
  }

  /**
   * The ICE servers with fresh credentials.
   * @param {AbortSignal} signal
   * @returns {Promise<RTCIceServer[]>}
   */
  async iceServers(signal) {
    const { token, path } = this.#participant;
    return (await this.api.request('GET', `${path}/ice-servers`, { token, attempts: 1, signal })).body.ice_servers;
  }

  /** @returns {Promise<import('./types.js').ServerStats>} */
  async stats() {
    const { token, path } = this.#participant;
    const query = this.destination === undefined ? '' : `?${new URLSearchParams({ destination: this.destination })}`;
    return (await this.api.request('GET', `${path}/stats${query}`, { token, attempts: 1 })).body;
  }

  /**
   * Nobody listens for its completion when we have left: a 202 is as good as done.
   * @param {{ stars: number, comment?: string }} rating
   */
  async rate({ stars, comment }) {
    const { token, path } = this.#participant;
    await this.api.request('POST', `${path}/rating`, { body: { stars, comment, destination: this.destination }, token });
  }

  /**
   * The event `command.completed`.
   * @param {{ command_id: string, status: number, result: any }} data
   */
  completed(data) {
    const waiter = this.#waiting.get(data.command_id);
    if (waiter) {
      waiter(data);
      return;
    }
    this.#early.set(data.command_id, data);
    if (this.#early.size > EARLY_RESULTS) this.#early.delete(this.#early.keys().next().value ?? '');
  }

  /**
   * @param {string} method
   * @param {string} subpath
   * @param {object} body
   */
  async #command(method, subpath, body) {
    const { token, path } = this.#participant;
    const full = { ...body, destination: this.destination };
    const reply = await this.api.request(method, path + subpath, { body: full, token });
    return reply.status === 202 ? this.#completion(reply.body.command_id) : reply.body;
  }

  /**
   * @param {string} commandId
   * @returns {Promise<any>}
   */
  #completion(commandId) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(commandId);
        reject(new SwitchyardError('expired', 'the result did not come in time'));
      }, COMPLETION_TIMEOUT_MS);
      const settle = (/** @type {{ status: number, result: any }} */ { status, result }) => {
        clearTimeout(timer);
        this.#waiting.delete(commandId);
        if (status < 400) resolve(result);
        else reject(new SwitchyardError(result?.code ?? `http_${status}`, result?.detail ?? 'refused', { status }));
      };
      const early = this.#early.get(commandId);
      this.#early.delete(commandId);
      if (early) settle(early);
      else this.#waiting.set(commandId, settle);
    });
  }
}
