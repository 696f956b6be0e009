/** Events by long poll: each request confirms what the one before brought. Works wherever HTTP does. */

import { TransportEnd, refusal } from './transport.js';

/** How long the server may hold a poll, in seconds. */
const WAIT_SECONDS = 25;
/** A reply that is this much later than that is lost. Milliseconds. */
const LATE_MS = 10_000;

/** @type {import('./transport.js').Transport} */
export async function polling({ api, inbox, signal, opened }) {
  for (let first = true; ; first = false) {
    // The first one only asks what is there, so that a refusal or an unreachable server shows at once.
    const events = await poll(api, inbox.cursor, first ? 0 : WAIT_SECONDS, signal);
    if (first) opened();
    for (const event of events) inbox.take(event);
  }
}

/**
 * @param {import('../participant-api.js').EndpointApi} api
 * @param {string | null} cursor
 * @param {number} wait seconds
 * @param {AbortSignal} signal
 * @returns {Promise<import('../types.js').ServerEvent[]>}
 */
async function poll(api, cursor, wait, signal) {
  const abort = new AbortController();
  const stop = () => abort.abort();
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  const timer = setTimeout(stop, wait * 1000 + LATE_MS);
  try {
    const path = api.eventsPath('events', { wait: String(wait), ...(cursor ? { cursor } : {}) });
    const response = await api.api.stream(path, { token: api.token, signal: abort.signal });
    if (!response.ok) throw await refusal(response);
    const { events } = await response.json();
    if (!Array.isArray(events)) throw new TypeError('a poll without events');
    return events;
  } catch (cause) {
    throw cause instanceof TransportEnd ? cause : new TransportEnd('cut', { cause });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}
