/**
 * Messages between participants: sent over the data channels of whichever connections there are, and told once however
 * often they come.
 *
 * Reliable messages wait here until a channel has room for them. While the room moves to another media server there are two
 * connections, and a message goes by both: some of the others have moved already, some have not. Whoever gets it twice
 * knows it by its id.
 */

import { SwitchyardError } from './errors.js';
import { encode, sizeOf } from './frames.js';
import { newId } from './ids.js';

/** The longest message, as a frame with what the server adds. Bytes. */
const MOST_BYTES = 64 * 1024 - 256;
/** Reliable messages that may wait here, in bytes. */
const MOST_WAITING = 1024 * 1024;
/** Messages whose ids are remembered. */
const REMEMBERED = 2048;

/** @typedef {import('./data-channels.js').DataChannels} DataChannels */
/** @typedef {import('./frames.js').Incoming} Incoming */

/**
 * @typedef {object} Waiting
 * @property {string | Uint8Array<ArrayBuffer>} frame
 * @property {number} size
 * @property {Set<DataChannels>} sent by which it has gone
 * @property {(sent: boolean) => void} resolve
 * @property {(error: SwitchyardError) => void} reject
 */

/**
 * @typedef {object} SendOptions
 * @property {string[]} [to] participant ids; by default everyone else
 * @property {string} [topic] at most 128 bytes
 * @property {boolean} [reliable] in order and without loss (default), or at once or not at all
 * @property {boolean} [events] also reach participants without a data channel, by their event stream; reliable ones
 *   only, at most 16 KiB
 */

export class Messages {
  #channels;
  #received;
  /** @type {Waiting[]} */
  #waiting = [];
  #waitingBytes = 0;
  /** @type {Set<string>} */
  #known = new Set();
  #closed = false;

  /**
   * @param {() => DataChannels[]} channels those of all connections now, newest first
   * @param {(message: Incoming) => void} received
   */
  constructor(channels, received) {
    this.#channels = channels;
    this.#received = received;
  }

  /**
   * @param {unknown} data
   * @param {SendOptions} options
   * @returns {Promise<boolean>} see `Room.sendMessage`
   */
  async send(data, { to, topic, reliable = true, events = false } = {}) {
    if (this.#closed) throw new SwitchyardError('closed', 'the room was left');
    const frame = encode({ to, topic, id: newId('msg'), ...(reliable && events ? { events } : {}), data });
    const size = sizeOf(frame);
    if (size > MOST_BYTES) throw new SwitchyardError('limit_exceeded', 'a message has at most 64 KiB');
    if (!reliable) {
      // All of them, even when the first one took it.
      return this.#channels().map((channels) => channels.send('lossy', frame)).includes(true);
    }
    if (this.#waitingBytes + size > MOST_WAITING && this.#waiting.length > 0) {
      throw new SwitchyardError('too_many_requests', 'too many messages wait to be sent');
    }
    this.#waitingBytes += size;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ frame, size, sent: new Set(), resolve, reject });
      this.flush();
    });
  }

  /** Sends what can be sent, in order on each connection. */
  flush() {
    const all = this.#channels();
    for (const channels of all) {
      for (const waiting of this.#waiting) {
        if (waiting.sent.has(channels)) continue;
        if (!channels.send('reliable', waiting.frame)) break;
        waiting.sent.add(channels);
        waiting.resolve(true);
      }
    }
    // An older connection that never opens again is closed before long, and then it is not waited for.
    const isDone = (/** @type {Waiting} */ { sent }) => sent.size > 0 && all.every((channels) => sent.has(channels));
    for (const { size } of this.#waiting.filter(isDone)) this.#waitingBytes -= size;
    this.#waiting = this.#waiting.filter((waiting) => !isDone(waiting));
  }

  /** @param {Incoming} message from a channel or from an event */
  handle(message) {
    if (this.#closed || this.#isKnown(message)) return;
    this.#received(message);
  }

  close() {
    this.#closed = true;
    const error = new SwitchyardError('closed', 'the room was left');
    for (const { reject } of this.#waiting) reject(error);
    this.#waiting = [];
  }

  /** @param {Incoming} message */
  #isKnown({ from, id }) {
    if (typeof id !== 'string') return false;
    const key = `${from ?? ''} ${id}`;
    if (this.#known.has(key)) return true;
    this.#known.add(key);
    if (this.#known.size > REMEMBERED) this.#known.delete(/** @type {string} */ (this.#known.values().next().value));
    return false;
  }
}
