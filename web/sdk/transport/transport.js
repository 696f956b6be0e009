/** What the three transports have in common: their contract, and how they end. */

/**
 * What a transport gets to run with.
 * @typedef {object} TransportContext
 * @property {import('../api.js').ParticipantApi} api
 * @property {string} endpointId whose events are read
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
 * The others are about the participant or its endpoint: no transport will do better. `endpoint_gone`: the stream of this
 * endpoint is over; who is still wanted joins again.
 * @typedef {'cut' | 'stalled' | 'unauthorized' | 'taken_over' | 'gone' | 'not_found' | 'endpoint_gone' | 'session_closed'} EndReason
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
 */
export async function refusal(response) {
  const retryAfter = Number(response.headers.get('Retry-After') ?? 0) || 0;
  /** @type {Record<number, EndReason>} */
  const reasons = { 401: 'unauthorized', 403: 'unauthorized', 404: 'not_found', 410: 'session_closed' };
  const problem = response.status === 410 ? await response.json().catch(() => null) : null;
  if (problem?.code === 'endpoint_gone') return new TransportEnd('endpoint_gone');
  return new TransportEnd(reasons[response.status] ?? 'cut', { retryAfter });
}
