/**
 * Perfect negotiation with the `revision` rules of docs/API.md, as a queue: one offer at a time, ours or
 * the server's. The server is the impolite side, this the polite one (W3C webrtc, section 10.7).
 *
 * ```text
 *   our offer (completed + 1) ──▶ answer             completed + 1, then any offer of the server's
 *                             ──▶ offer_collision    roll back, answer the server's, offer again
 *   the server's offer, while ours waits for its reply:
 *        revision completed + 1   ours was or will be refused: the reply says so
 *        revision completed + 2   ours was accepted and overtaken: the reply comes first, then this
 * ```
 *
 * In both cases the HTTP reply to our own offer decides, so the server's offer waits for that reply and
 * nothing has to be guessed. Knows the `RTCPeerConnection` only by its offer/answer methods.
 */

import { backoff, sleep } from './backoff.js';
import { SwitchyardError, codeOf } from './errors.js';
import { describeLocally } from './voice-repair.js';

/** After a collision the server's offer is on its way; without it we offer again after this long. */
const COLLISION_PATIENCE_MS = 1500;
/** Collisions in a row without any offer of the server's: we no longer agree on the revision. */
const LONELY_COLLISIONS = 4;
/** Refusals that say something about this offer, not about the connection. */
const REFUSALS = ['invalid_sdp', 'limit_exceeded', 'forbidden', 'invalid_request'];
/** What the server says to an answer that it has already: the reply to the first try was lost. */
const ANSWERED = 'no_offer_pending';

/**
 * @typedef {object} NegotiatorHooks
 * @property {(offer: { sdp: string, revision: number, tracks: import('./types.js').TrackDescription[] }) => Promise<import('./types.js').Answer & { tracks?: import('./types.js').TrackInfo[] }>} sendOffer
 * @property {(answer: import('./types.js').Answer) => Promise<unknown>} sendAnswer
 * @property {() => () => import('./types.js').TrackDescription[]} describeTracks notes what is published now,
 *   before the offer is made; the returned function puts it in words once the m-lines have their mids
 * @property {(tracks: import('./types.js').TrackInfo[]) => void} published our tracks as the server has them now
 * @property {(tracks: import('./types.js').SubscribedTrack[]) => void} subscribed a server offer was applied
 * @property {(error: SwitchyardError) => void} broken the negotiation cannot go on; called once
 */

/** @typedef {Pick<RTCPeerConnection, 'createOffer' | 'createAnswer' | 'setLocalDescription' | 'setRemoteDescription' | 'localDescription' | 'signalingState'>} Peer */

export class Negotiator {
  #peer;
  #hooks;
  #patience;
  /** Revision of the last completed negotiation, from either side. */
  #completed = 0;
  #running = false;
  #closed = false;
  /** @type {import('./types.js').ServerOffer | null} */
  #serverOffer = null;
  /** Callers of `negotiate` whose changes no completed offer carries yet. */
  /** @type {{ resolve: () => void, reject: (error: Error) => void }[]} */
  #wanting = [];
  #lonelyCollisions = 0;
  /** @type {AbortController | null} ends the wait that is under way */
  #pause = null;

  /**
   * @param {Peer} peer
   * @param {NegotiatorHooks} hooks
   * @param {{ collisionPatience?: number }} [options]
   */
  constructor(peer, hooks, { collisionPatience = COLLISION_PATIENCE_MS } = {}) {
    this.#peer = peer;
    this.#hooks = hooks;
    this.#patience = collisionPatience;
  }

  get completed() {
    return this.#completed;
  }

  /**
   * The first offer, made to travel inside the join request. Nothing else is negotiated until
   * `acceptFirst` brings its answer.
   */
  async prepareFirst() {
    this.#running = true;
    const describe = this.#hooks.describeTracks();
    await describeLocally(this.#peer);
    return { sdp: this.#localSdp(), tracks: describe() };
  }

  /**
   * @param {import('./types.js').Answer} answer
   * @param {import('./types.js').TrackInfo[]} tracks
   */
  async acceptFirst(answer, tracks) {
    await this.#peer.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
    this.#completed = answer.revision;
    this.#hooks.published(tracks);
    this.#running = false;
    this.#pump();
  }

  /**
   * Offers what changed locally. Several calls in a row share one offer.
   * @returns {Promise<void>} when an offer with the changes has been answered
   * @throws {SwitchyardError} the server's refusal (the local description was rolled back), or
   *   `superseded` when the connection ended first
   */
  negotiate() {
    if (this.#closed) return Promise.reject(superseded());
    return new Promise((resolve, reject) => {
      this.#wanting.push({ resolve, reject });
      this.#pump();
    });
  }

  /**
   * The event `offer`. Repeats and offers that a rollback made void are dropped.
   * @param {import('./types.js').ServerOffer} offer
   */
  handleServerOffer(offer) {
    if (this.#closed || offer.revision <= this.#completed) return;
    if (this.#serverOffer && this.#serverOffer.revision > offer.revision) return;
    this.#serverOffer = offer;
    this.#pause?.abort();
    this.#pump();
  }

  /** Ends it; whoever waits gets `superseded`. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#serverOffer = null;
    this.#pause?.abort();
    for (const { reject } of this.#wanting.splice(0)) reject(superseded());
  }

  async #pump() {
    if (this.#running || this.#closed) return;
    this.#running = true;
    try {
      while (!this.#closed && (this.#serverOffer || this.#wanting.length > 0)) {
        const offer = this.#serverOffer;
        this.#serverOffer = null;
        if (offer) await this.#answer(offer);
        else await this.#offer();
      }
    } catch (error) {
      this.#break(error);
    } finally {
      this.#running = false;
    }
  }

  /** @param {import('./types.js').ServerOffer} offer */
  async #answer(offer) {
    if (offer.revision <= this.#completed) return;
    if (offer.revision !== this.#completed + 1) {
      throw new SwitchyardError('out_of_step', `offer ${offer.revision} came after ${this.#completed}`);
    }
    await this.#peer.setRemoteDescription({ type: 'offer', sdp: offer.sdp });
    this.#hooks.subscribed(offer.tracks);
    await describeLocally(this.#peer);
    if (this.#closed) return;
    await this.#deliver({ sdp: this.#localSdp(), revision: offer.revision });
    this.#completed = offer.revision;
    this.#lonelyCollisions = 0;
  }

  /**
   * An answer is applied here already, so it has to arrive: while the server is out of reach the media that
   * flows is worth more than a negotiation that is in step.
   * @param {import('./types.js').Answer} answer
   */
  async #deliver(answer) {
    for (let attempt = 0; !this.#closed; attempt += 1) {
      try {
        await this.#hooks.sendAnswer(answer);
        return;
      } catch (error) {
        if (attempt > 0 && codeOf(error) === ANSWERED) return;
        if (!(error instanceof SwitchyardError && error.retryable)) throw error;
      }
      this.#pause = new AbortController();
      await sleep(backoff(attempt, { base: 500 }), this.#pause.signal);
    }
  }

  async #offer() {
    const carried = this.#wanting.splice(0);
    const describe = this.#hooks.describeTracks();
    try {
      await describeLocally(this.#peer);
      const answer = await this.#hooks.sendOffer({
        sdp: this.#localSdp(),
        revision: this.#completed + 1,
        tracks: describe(),
      });
      if (this.#closed) throw superseded();
      await this.#peer.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
      this.#completed = answer.revision;
      this.#lonelyCollisions = 0;
      if (answer.tracks) this.#hooks.published(answer.tracks);
      for (const { resolve } of carried) resolve();
    } catch (error) {
      if (this.#closed) {
        for (const { reject } of carried) reject(superseded());
        return;
      }
      await this.#refused(error, carried);
    }
  }

  /**
   * @param {unknown} error
   * @param {{ resolve: () => void, reject: (error: Error) => void }[]} carried
   */
  async #refused(error, carried) {
    if (this.#peer.signalingState === 'have-local-offer') {
      await this.#peer.setLocalDescription({ type: 'rollback' });
    }
    const code = codeOf(error);
    if (code === 'offer_collision') {
      this.#wanting.unshift(...carried);
      await this.#awaitServerOffer();
    } else {
      for (const { reject } of carried) reject(/** @type {Error} */ (error));
      // Out of reach is not out of step: the caller may try again, and media flows meanwhile.
      const mayPass = error instanceof SwitchyardError && error.retryable;
      if (!mayPass && !REFUSALS.includes(code)) throw error;
    }
  }

  async #awaitServerOffer() {
    if (this.#serverOffer || this.#closed) return;
    this.#pause = new AbortController();
    await sleep(backoff(0, { base: this.#patience }), this.#pause.signal);
    this.#pause = null;
    if (this.#serverOffer || this.#closed) return;
    this.#lonelyCollisions += 1;
    if (this.#lonelyCollisions >= LONELY_COLLISIONS) {
      throw new SwitchyardError('out_of_step', 'the server refuses every offer and makes none itself');
    }
  }

  /** @param {unknown} error */
  #break(error) {
    if (this.#closed) return;
    this.close();
    this.#hooks.broken(
      error instanceof SwitchyardError
        ? error
        : new SwitchyardError('out_of_step', 'the negotiation failed', { cause: error }),
    );
  }

  #localSdp() {
    return this.#peer.localDescription?.sdp ?? '';
  }
}

function superseded() {
  return new SwitchyardError('superseded', 'the connection was replaced or closed');
}
