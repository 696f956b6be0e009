/** What the three transports have in common: their contract, and how they end. */

/**
 * What a transport gets to run with.
 * @typedef {object} TransportContext
 * @property {import('../participant-api.js').EndpointApi} api
 * @property {import('./dedupe.js').Inbox} inbox
 * @property {AbortSignal} signal ends it
 * @property {() => void} opened to be called once the server has accepted it
 */

/**
 * Runs until it is cut off or `signal` is aborted, then rejects with a `TransportEnd`.
 * @typedef {(context: TransportContext) => Promise<never>} Transport
 */

/**
 * `cut`: try again, perhaps by another way. `stalled`: it opened but brings nothing: another way.
 * The others are about the endpoint or the session: no transport will do better.
 * @typedef {'cut' | 'stalled' | 'unauthorized' | 'taken_over' | 'gone' | 'session_closed'} EndReason
 */

export class TransportEnd extends Error {
  /**
   * @param {EndReason} reason
   * @param {{ cause?: unknown, retryAfter?: number }} [more] `retryAfter` in seconds
   */
  constructor(reason, { cause, retryAfter = 0 } = {}) {
    super(`event transport ended: ${reason}`, { cause });
    this.reason = reason;
    this.retryAfter = retryAfter;
  }
}

/**
 * How a refused event request ends its transport.
 * @param {Response} response
 * @returns {Promise<TransportEnd>}
 */
export async function refusal(response) {
  const retryAfter = Number(response.headers.get('Retry-After') ?? 0) || 0;
  /** @type {Record<number, EndReason>} */
  const reasons = { 401: 'unauthorized', 403: 'unauthorized', 404: 'gone', 410: 'gone' };
  const reason = reasons[response.status] ?? 'cut';
  const problem = reason === 'gone' ? await response.json().catch(() => null) : null;
  return new TransportEnd(problem?.code === 'session_closed' ? 'session_closed' : reason, { retryAfter });
}
