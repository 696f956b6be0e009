/**
 * The event channel of one endpoint: WebSocket, else SSE, else long poll; reconnects, goes on after the last event that
 * was delivered, and drops repeats. Ends only when no transport could do better.
 */

import { backoff, sleep } from '../backoff.js';
import { Inbox } from './dedupe.js';
import { polling } from './polling.js';
import { sse } from './sse.js';
import { TransportEnd } from './transport.js';
import { webSocket } from './websocket.js';

/** Best first. @type {import('../types.js').TransportName[]} */
const PREFERENCE = ['websocket', 'sse', 'polling'];
/** @type {Record<import('../types.js').TransportName, import('./transport.js').Transport>} */
const TRANSPORTS = { websocket: webSocket, sse, polling };

/** A transport that is cut off sooner than this, twice in a row, is left for the next. Milliseconds. */
const SHORT_LIFE_MS = 5000;
/** The longest pause between tries. Nothing is given up: media needs no events, and an outage ends. Milliseconds. */
const LONGEST_PAUSE_MS = 4000;
/** Being taken over once may be our own earlier connection, late at another instance. */
const TAKEOVERS = 2;

/** @typedef {Exclude<import('./transport.js').EndReason, 'cut' | 'stalled'>} ChannelEnd */

export class EventChannel {
  #api;
  #order;
  #inbox;
  #ended;
  #abort = new AbortController();
  #position = 0;
  #random;
  /** @type {import('../types.js').TransportName | null} */
  #current = null;

  /**
   * @param {import('../participant-api.js').EndpointApi} api
   * @param {object} options
   * @param {import('../types.js').TransportName} [options.transport] only this one
   * @param {(event: import('../types.js').ServerEvent) => void} options.deliver each event once, in order
   * @param {(reason: ChannelEnd) => void} options.ended it has stopped; not called after `close`
   * @param {() => number} [options.random]
   */
  constructor(api, { transport, deliver, ended, random = Math.random }) {
    this.#api = api;
    this.#order = transport ? [transport] : PREFERENCE;
    this.#inbox = new Inbox(deliver);
    this.#ended = ended;
    this.#random = random;
    for (const name of this.#order) if (!TRANSPORTS[name]) throw new TypeError(`unknown transport ${name}`);
  }

  /** The transport that is open now. */
  get transport() {
    return this.#current;
  }

  async start() {
    const { signal } = this.#abort;
    let failures = 0;
    let shortLives = 0;
    let takeovers = 0;
    while (!signal.aborted) {
      const name = this.#order[this.#position % this.#order.length];
      let openedAt = 0;
      const opened = () => {
        openedAt = Date.now();
        this.#current = name;
      };
      const end = await TRANSPORTS[name]({ api: this.#api, inbox: this.#inbox, signal, opened }).catch(
        (error) => (error instanceof TransportEnd ? error : new TransportEnd('stalled', { cause: error })),
      );
      this.#current = null;
      if (signal.aborted) return;

      const lived = openedAt === 0 ? 0 : Date.now() - openedAt;
      shortLives = lived < SHORT_LIFE_MS ? shortLives + 1 : 0;
      // Not on opening: one that opens and is cut off at once would be tried without end or pause.
      if (lived >= SHORT_LIFE_MS) takeovers = failures = 0;
      if (end.reason === 'taken_over') takeovers += 1;
      const last = this.#verdict(end.reason, takeovers);
      if (last) {
        this.#ended(last);
        return;
      }
      if (openedAt === 0 || end.reason === 'stalled' || shortLives >= 2) {
        this.#position += 1;
        shortLives = 0;
      }
      failures += 1;
      // One that did not open leaves to the next at once; when all have failed it is time to wait.
      const nextAtOnce = openedAt === 0 && failures < this.#order.length;
      const round = Math.max(0, failures - this.#order.length);
      const pause = nextAtOnce ? 0 : backoff(round, { limit: LONGEST_PAUSE_MS, random: this.#random });
      await sleep(Math.max(pause, Math.min(end.retryAfter, 10) * 1000), signal);
    }
  }

  close() {
    this.#abort.abort();
  }

  /**
   * @param {import('./transport.js').EndReason} reason
   * @param {number} takeovers
   * @returns {ChannelEnd | null} null to go on
   */
  #verdict(reason, takeovers) {
    if (reason === 'taken_over') return takeovers >= TAKEOVERS ? reason : null;
    return reason === 'cut' || reason === 'stalled' ? null : reason;
  }
}
