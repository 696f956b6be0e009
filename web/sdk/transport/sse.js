/**
 * Events as Server-Sent Events, read with `fetch` and not `EventSource`: the token stays in a header, and
 * a reconnect may go to another instance.
 */

import { TransportEnd, refusal } from './transport.js';

/** The server sends a comment every 15 s; a proxy that buffers sends nothing. Milliseconds. */
const SILENCE_LIMIT_MS = 40_000;

/** @type {import('./transport.js').Transport} */
export async function sse({ api, inbox, signal, opened }) {
  const abort = new AbortController();
  const stop = () => abort.abort();
  signal.addEventListener('abort', stop);
  let silence = setTimeout(stop, SILENCE_LIMIT_MS);
  let stalled = true;
  try {
    /** @type {Record<string, string>} */
    const headers = { Accept: 'text/event-stream' };
    if (inbox.cursor) headers['Last-Event-ID'] = inbox.cursor;
    const options = { token: api.token, headers, signal: abort.signal };
    const response = await api.api.stream(api.eventsPath('events'), options);
    if (!response.ok) throw await refusal(response);
    if (!response.body || !response.headers.get('Content-Type')?.startsWith('text/event-stream')) {
      throw new TransportEnd('stalled');
    }
    opened();
    const parser = new SseParser((data) => inbox.take(JSON.parse(data)));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new TransportEnd('cut');
      stalled = false;
      clearTimeout(silence);
      silence = setTimeout(stop, SILENCE_LIMIT_MS);
      parser.push(value);
    }
  } catch (cause) {
    if (cause instanceof TransportEnd) throw cause;
    throw new TransportEnd(abort.signal.aborted && !signal.aborted && stalled ? 'stalled' : 'cut', { cause });
  } finally {
    clearTimeout(silence);
    signal.removeEventListener('abort', stop);
    abort.abort();
  }
}

/** The event stream format (WHATWG HTML, section 9.2.6), as far as the data of each event goes. */
export class SseParser {
  #rest = '';
  /** @type {string[]} */
  #data = [];
  #onData;

  /** @param {(data: string) => void} onData */
  constructor(onData) {
    this.#onData = onData;
  }

  /**
   * Takes the next piece of the stream, cut anywhere.
   * @param {string} text
   */
  push(text) {
    this.#rest += text;
    // A CR at the very end may be half of a CRLF: it waits for the next piece.
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line);
  }

  /** @param {string} line */
  #line(line) {
    if (line === '') {
      if (this.#data.length > 0) this.#onData(this.#data.join('\n'));
      this.#data = [];
    } else if (line === 'data') {
      this.#data.push('');
    } else if (line.startsWith('data:')) {
      this.#data.push(line.slice(line[5] === ' ' ? 6 : 5));
    }
  }
}
