/** Events over a WebSocket: a text frame each, confirmed by `{"ack": "evt_…"}`. */

import { TransportEnd } from './transport.js';

/** A handshake through a proxy that knows no WebSocket may hang for good. Milliseconds. */
const OPEN_TIMEOUT_MS = 4000;
/** Events that came together are confirmed together. Milliseconds. */
const ACK_DELAY_MS = 50;

/** @type {Record<number, import('./transport.js').EndReason>} */
const CLOSE_CODES = { 4000: 'taken_over', 4001: 'gone', 4002: 'unauthorized', 4003: 'gone', 4004: 'unauthorized' };

/** @type {import('./transport.js').Transport} */
export function webSocket({ api, inbox, signal, opened }) {
  return new Promise((_, reject) => {
    const url = new URL(api.api.url(api.eventsPath('events/ws', { access_token: api.token })));
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let ackTimer;
    const openTimer = setTimeout(() => end(new TransportEnd('cut')), OPEN_TIMEOUT_MS);

    const end = (/** @type {TransportEnd} */ reason) => {
      clearTimeout(openTimer);
      clearTimeout(ackTimer);
      signal.removeEventListener('abort', abort);
      socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
      socket.close();
      reject(reason);
    };
    const acknowledge = () => {
      ackTimer = undefined;
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ ack: inbox.cursor }));
    };
    const abort = () => {
      if (ackTimer !== undefined) acknowledge();
      end(new TransportEnd('cut'));
    };

    socket.onopen = () => {
      clearTimeout(openTimer);
      opened();
    };
    socket.onmessage = ({ data }) => {
      try {
        inbox.take(JSON.parse(data));
      } catch (cause) {
        end(new TransportEnd('stalled', { cause }));
        return;
      }
      ackTimer ??= setTimeout(acknowledge, ACK_DELAY_MS);
    };
    // A refused handshake; not every runtime lets a close event follow.
    socket.onerror = () => end(new TransportEnd('cut'));
    socket.onclose = ({ code }) => end(new TransportEnd(CLOSE_CODES[code] ?? 'cut'));
    signal.addEventListener('abort', abort);
    if (signal.aborted) abort();
  });
}
