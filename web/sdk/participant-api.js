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
        return reply.body;
      }
      if (Date.now() > deadline) throw new SwitchyardError('expired', 'the join was not completed in time');
      await sleep(250, signal);
    }
  }

  /**
   * Leaves. With `keepalive` the browser sends it even when the page is going away.
   * @param {{ keepalive?: boolean }} [options]
   */
  async leave({ keepalive = false } = {}) {
    await this.api.request('DELETE', this.path, { token: this.token, keepalive, attempts: keepalive ? 1 : 3 });
  }
}

/** Knows one endpoint's id and destination, and waits out a 202. */
export class EndpointApi {
  #participant;
  /** Opaque, from the join reply. @type {string | undefined} */
  #destination;
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
    this.#destination = reply.destination;
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
    const body = { candidates: [NO_CANDIDATE], destination: this.#destination };
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
    const full = { ...body, destination: this.#destination };
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
