/**
 * Typed calls of the HTTP API (docs/API.md).
 *
 * Every changing request carries an `Idempotency-Key`, so it may be sent again after a lost reply: with
 * the same key it takes effect once. What the server could not finish in time (202) is completed by the
 * event `command.completed`; participant-api.js waits for that.
 */

import { backoff, sleep } from './backoff.js';
import { SwitchyardError } from './errors.js';
import { newId } from './ids.js';

/** Tries of one request, the first included. */
const ATTEMPTS = 5;
/** How long the server may hold a request before it answers 202, in seconds. */
const WAIT_SECONDS = 10;
/** A reply that is this much later than the server may hold it counts as lost. Milliseconds. */
const REPLY_LATENESS_MS = 10_000;
/** `Retry-After` is honoured up to this many seconds; beyond it our own back-off decides. */
const RETRY_AFTER_LIMIT = 10;

/**
 * @typedef {object} RequestOptions
 * @property {any} [body]
 * @property {string} [token]
 * @property {string} [key] idempotency key
 * @property {number} [attempts]
 * @property {number} [wait] how long the server may hold the request, in seconds; 10 by default
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
  async #once(method, path, { body, token, key, signal, keepalive, wait = WAIT_SECONDS }) {
    if (signal?.aborted) throw new SwitchyardError('aborted', 'cancelled by the caller');
    /** @type {Record<string, string>} */
    const headers = { Prefer: `wait=${wait}` };
    if (token) headers.Authorization = `Bearer ${token}`;
    if (key) headers['Idempotency-Key'] = key;
    if (body !== undefined) headers['Content-Type'] = 'application/json';

    const abort = new AbortController();
    const cancel = () => abort.abort();
    signal?.addEventListener('abort', cancel);
    const timer = setTimeout(cancel, wait * 1000 + REPLY_LATENESS_MS);
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
