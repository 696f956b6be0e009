/**
 * The two data channels of one connection: `reliable`, and `lossy` for what is worth nothing when it is late. They
 * are there from the first offer on.
 *
 * The server closes the reliable channel of a receiver that does not keep up; then it is opened again, and what was sent
 * in between is missing.
 */

import { decode, sizeOf } from './frames.js';

const PROTOCOL = 'switchyard.v1';
/** What may wait in the browser, in bytes. */
const MOST_BUFFERED = { reliable: 1024 * 1024, lossy: 64 * 1024 };
/** Below this there is room again. Bytes. */
const LOW_MARK = 256 * 1024;
/** A channel that was closed is opened again after this long. Milliseconds. */
const REOPEN_AFTER_MS = 500;

/** @typedef {'reliable' | 'lossy'} ChannelName */

/**
 * @typedef {object} DataChannelHooks
 * @property {(message: import('./frames.js').Incoming) => void} received
 * @property {() => void} writable a channel was opened, or has room again
 * @property {() => void} missed the reliable channel was closed: messages are missing
 */

export class DataChannels {
  #peer;
  #hooks;
  #closed = false;
  /** @type {Partial<Record<ChannelName, RTCDataChannel>>} */
  #channels = {};

  /**
   * @param {RTCPeerConnection} peer
   * @param {DataChannelHooks} hooks
   */
  constructor(peer, hooks) {
    this.#peer = peer;
    this.#hooks = hooks;
    this.#open('reliable');
    this.#open('lossy');
  }

  /** @param {ChannelName} name */
  isOpen(name) {
    return this.#channels[name]?.readyState === 'open';
  }

  /**
   * @param {ChannelName} name
   * @param {string | Uint8Array<ArrayBuffer>} frame
   * @returns {boolean} false: the channel is not open, or has no room
   */
  send(name, frame) {
    const channel = this.#channels[name];
    if (channel?.readyState !== 'open') return false;
    const waiting = channel.bufferedAmount;
    if (waiting > 0 && waiting + sizeOf(frame) > MOST_BUFFERED[name]) return false;
    channel.send(/** @type {any} */ (frame));
    return true;
  }

  close() {
    this.#closed = true;
    for (const channel of Object.values(this.#channels)) channel.close();
  }

  /** @param {ChannelName} name */
  #open(name) {
    const lossy = name === 'lossy' ? { ordered: false, maxRetransmits: 0 } : {};
    const channel = this.#peer.createDataChannel(name, { protocol: PROTOCOL, ...lossy });
    this.#channels[name] = channel;
    channel.binaryType = 'arraybuffer';
    channel.bufferedAmountLowThreshold = LOW_MARK;
    let opened = false;
    channel.addEventListener('open', () => {
      opened = true;
      this.#hooks.writable();
    });
    channel.addEventListener('bufferedamountlow', () => this.#hooks.writable());
    channel.addEventListener('message', ({ data }) => {
      const message = decode(data);
      if (message) this.#hooks.received(message);
    });
    channel.addEventListener('close', () => {
      if (this.#closed || this.#channels[name] !== channel || !opened) return;
      if (name === 'reliable') this.#hooks.missed();
      setTimeout(() => this.#reopen(name), REOPEN_AFTER_MS);
    });
  }

  /** Where the whole association has ended, the connection's end will bring new ones. @param {ChannelName} name */
  #reopen(name) {
    if (this.#closed || this.#peer.sctp?.state !== 'connected') return;
    this.#open(name);
  }
}
