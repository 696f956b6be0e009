/**
 * Trickle ICE in both directions (RFC 8838): our candidates leave in batches once it is known where to;
 * the server's wait until there is a remote description to add them to.
 */

/** Candidates of one gathering burst share a request. Milliseconds. */
const BATCH_MS = 10;
/** More than any real gathering makes; the API refuses larger batches. */
const BATCH_LIMIT = 32;
/** Server candidates kept while there is no remote description. */
const PENDING_LIMIT = 64;

export class LocalCandidates {
  /** @type {RTCIceCandidateInit[]} */
  #queue = [];
  /** @type {((candidates: RTCIceCandidateInit[]) => Promise<unknown>) | null} */
  #send = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #sending = false;

  /**
   * One candidate, or null for the end of this gathering.
   * @param {RTCIceCandidate | null} candidate
   */
  add(candidate) {
    // Firefox says the end twice: as an empty candidate and as null.
    if (candidate && candidate.candidate === '') return;
    this.#queue.push(candidate ? candidate.toJSON() : { candidate: '', sdpMid: '0', sdpMLineIndex: 0 });
    this.#schedule();
  }

  /**
   * From here on it is known where they go. `send` deals with its own errors.
   * @param {(candidates: RTCIceCandidateInit[]) => Promise<unknown>} send
   */
  open(send) {
    this.#send = send;
    this.#flush();
  }

  close() {
    clearTimeout(this.#timer);
    this.#queue = [];
    this.#send = null;
  }

  #schedule() {
    if (!this.#send || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.#flush(), BATCH_MS);
  }

  async #flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#sending) return;
    this.#sending = true;
    while (this.#send && this.#queue.length > 0) {
      await this.#send(this.#queue.splice(0, BATCH_LIMIT));
    }
    this.#sending = false;
  }
}

export class RemoteCandidates {
  /** @type {RTCIceCandidateInit[]} */
  #pending = [];
  #peer;

  /** @param {Pick<RTCPeerConnection, 'remoteDescription' | 'addIceCandidate'>} peer */
  constructor(peer) {
    this.#peer = peer;
  }

  /** @param {RTCIceCandidateInit[]} candidates */
  add(candidates) {
    this.#pending.push(...candidates);
    this.#pending.splice(0, Math.max(0, this.#pending.length - PENDING_LIMIT));
    this.apply();
  }

  /** Adds what waited, when there is a remote description by now. */
  apply() {
    if (!this.#peer.remoteDescription) return;
    for (const candidate of this.#pending.splice(0)) {
      // One that belongs to an ICE generation that is over is refused by the browser, rightly.
      this.#peer.addIceCandidate(candidate).catch(() => {});
    }
  }
}
