/**
 * Typed calls of the HTTP API (docs/API.md).
 *
 * Every changing request carries an `Idempotency-Key`, so it may be sent again after a lost reply: with
 * the same key it takes effect once. What the server could not finish in time (202) is completed by the
 * event `command.completed`, which the room hands to `completed()`.
 */

import { backoff, sleep } from './backoff.js';
import { SwitchyardError } from './errors.js';
import { newId } from './ids.js';

/** Tries of one request, the first included. */
const ATTEMPTS = 5;
/** How long the server may hold a request before it answers 202, in seconds. */
const WAIT_SECONDS = 10;
/** No reply for this long counts as lost, in milliseconds. Longer than any `Prefer: wait` used here. */
const REPLY_TIMEOUT_MS = 20_000;
/** A command's own deadline on the server is 60 s: nothing completes later than that. */
const COMPLETION_TIMEOUT_MS = 65_000;
/** `Retry-After` is honoured up to this many seconds; beyond it our own back-off decides. */
const RETRY_AFTER_LIMIT = 10;
/** Results of commands that came before their 202 did. */
const EARLY_RESULTS = 64;

/**
 * @typedef {object} RequestOptions
 * @property {any} [body]
 * @property {string} [token]
 * @property {string} [key] idempotency key
 * @property {number} [attempts]
 * @property {AbortSignal} [signal]
 * @property {boolean} [keepalive] survives the page
 */

export class Api {
  #bases;
  #next = 0;
  #fetch;
  #random;

  /**
   * @param {string[]} bases addresses of API instances; consecutive requests go round robin
   * @param {{ fetch?: typeof fetch, random?: () => number }} [environment] for tests
   */
  constructor(bases, { fetch = globalThis.fetch.bind(globalThis), random = Math.random } = {}) {
    if (bases.length === 0) throw new TypeError('at least one API address is needed');
    this.#bases = bases.map((base) => base.replace(/\/+$/, ''));
    this.#fetch = fetch;
    this.#random = random;
  }

  /**
   * The full address of `path` at the instance whose turn it is.
   * @param {string} path
   */
  url(path) {
    const base = this.#bases[this.#next % this.#bases.length];
    this.#next += 1;
    return base + path;
  }

  /**
   * One GET whose body the caller reads, at the instance whose turn it is. Not repeated here.
   * @param {string} path
   * @param {{ token: string, headers?: Record<string, string>, signal?: AbortSignal }} options
   */
  stream(path, { token, headers, signal }) {
    return this.#fetch(this.url(path), {
      headers: { Authorization: `Bearer ${token}`, ...headers },
      cache: 'no-store',
      signal,
    });
  }

  /**
   * Sends a request until it is answered by something other than "try again".
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options]
   * @returns {Promise<{ status: number, body: any }>}
   * @throws {SwitchyardError} with the server's code; `network`, `timeout` or `aborted` without a reply
   */
  async request(method, path, options = {}) {
    const key = options.key ?? (method === 'GET' ? undefined : newId('cmd'));
    const attempts = options.attempts ?? ATTEMPTS;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#once(method, path, { ...options, key });
      } catch (error) {
        const known = /** @type {SwitchyardError} */ (error);
        if (!known.retryable || attempt + 1 >= attempts) throw known;
        const asked = known.retryAfter === null ? 0 : Math.min(known.retryAfter, RETRY_AFTER_LIMIT) * 1000;
        const own = backoff(attempt, { random: this.#random });
        await sleep(asked + own, options.signal);
      }
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} options
   */
  async #once(method, path, { body, token, key, signal, keepalive }) {
    if (signal?.aborted) throw new SwitchyardError('aborted', 'cancelled by the caller');
    /** @type {Record<string, string>} */
    const headers = { Prefer: `wait=${WAIT_SECONDS}` };
    if (token) headers.Authorization = `Bearer ${token}`;
    if (key) headers['Idempotency-Key'] = key;
    if (body !== undefined) headers['Content-Type'] = 'application/json';

    const abort = new AbortController();
    const cancel = () => abort.abort();
    signal?.addEventListener('abort', cancel);
    const timer = setTimeout(cancel, REPLY_TIMEOUT_MS);
    try {
      const response = await this.#fetch(this.url(path), {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: 'no-store',
        keepalive,
        signal: abort.signal,
      });
      const text = await response.text();
      if (!response.ok) throw problem(response, text);
      return { status: response.status, body: text === '' ? null : JSON.parse(text) };
    } catch (cause) {
      if (cause instanceof SwitchyardError) throw cause;
      if (signal?.aborted) throw new SwitchyardError('aborted', 'cancelled by the caller', { cause });
      if (abort.signal.aborted) throw new SwitchyardError('timeout', 'the server did not reply', { cause });
      throw new SwitchyardError('network', 'the server could not be reached', { cause });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
    }
  }
}

/**
 * The error that a reply describes; a proxy's HTML page becomes one without a known code.
 * @param {Response} response
 * @param {string} text
 */
export function problem(response, text) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = null;
  }
  const seconds = Number(response.headers.get('Retry-After') ?? NaN);
  return new SwitchyardError(
    typeof body?.code === 'string' ? body.code : `http_${response.status}`,
    body?.detail ?? body?.title ?? `the server answered ${response.status}`,
    { status: response.status, retryAfter: Number.isFinite(seconds) ? seconds : null },
  );
}

/** The calls of one participant: knows its ids, token and destination, and waits out a 202. */
export class ParticipantApi {
  /** @type {Map<string, (event: { status: number, result: any }) => void>} */
  #waiting = new Map();
  /** @type {Map<string, { status: number, result: any }>} */
  #early = new Map();

  /**
   * @param {Api} api
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
    /** @type {string | undefined} */
    this.destination = undefined;
  }

  /** The path of this participant. */
  get path() {
    return `/v1/sessions/${encodeURIComponent(this.sessionId)}/participants/${encodeURIComponent(this.participantId ?? '')}`;
  }

  /**
   * Where the events of one endpoint are read.
   * @param {string} endpointId
   * @param {string} [rest] below that path
   * @param {Record<string, string>} [query]
   */
  events(endpointId, rest = '', query = {}) {
    return `${this.path}/events${rest}?${new URLSearchParams({ endpoint: endpointId, ...query })}`;
  }

  /**
   * Joins, or joins again as the same participant. A join has no event stream yet that could bring a
   * late result, so a 202 is answered by asking again with the same key.
   * @param {{ name?: string, server_offers?: boolean, offer?: { sdp: string, tracks: import('./types.js').TrackDescription[] } }} body
   * @param {{ signal?: AbortSignal, attempts?: number }} [options]
   * @returns {Promise<import('./types.js').JoinReply>}
   */
  async join(body, { signal, attempts } = {}) {
    const path = `/v1/sessions/${encodeURIComponent(this.sessionId)}/participants`;
    const key = newId('cmd');
    const full = this.participantId ? { ...body, participant_id: this.participantId } : body;
    const deadline = Date.now() + COMPLETION_TIMEOUT_MS;
    for (;;) {
      const reply = await this.api.request('POST', path, { body: full, token: this.token, key, signal, attempts });
      if (reply.status !== 202) {
        this.participantId = reply.body.participant.id;
        this.token = reply.body.token;
        this.destination = reply.body.destination;
        return reply.body;
      }
      if (Date.now() > deadline) throw new SwitchyardError('expired', 'the join was not completed in time');
      await sleep(250, signal);
    }
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
   * @param {string} trackId
   * @param {boolean} muted
   * @returns {Promise<import('./types.js').TrackInfo>}
   */
  setMuted(trackId, muted) {
    return this.#command('PATCH', `/tracks/${encodeURIComponent(trackId)}`, { muted });
  }

  /**
   * Leaves. With `keepalive` the browser sends it even when the page is going away.
   * @param {{ keepalive?: boolean }} [options]
   */
  async leave({ keepalive = false } = {}) {
    await this.api.request('DELETE', this.path, { token: this.token, keepalive, attempts: keepalive ? 1 : 3 });
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
    const { token, destination } = this;
    const reply = await this.api.request(method, this.path + subpath, { body: { ...body, destination }, token });
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
