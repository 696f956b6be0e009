/**
 * One endpoint of ours: its connection, its events and its figures. A room has one, and two for a while when
 * it moves; whatever is about one endpoint stays in here, so that neither is mistaken for the other.
 */

import { Connection } from './connection.js';
import { SwitchyardError } from './errors.js';
import { EndpointApi } from './participant-api.js';
import { StatsReader } from './stats.js';
import { EventChannel } from './transport/index.js';

/**
 * @typedef {object} EndpointHooks
 * @property {(endpoint: Endpoint) => void} changed `isUp` did
 * @property {(endpoint: Endpoint, tracks: import('./types.js').SubscribedTrack[]) => void} subscribed
 * @property {(endpoint: Endpoint, tracks: import('./types.js').TrackInfo[]) => void} published
 * @property {(publication: import('./publication.js').LocalPublication) => string} identify
 * @property {(endpoint: Endpoint, error: SwitchyardError, ended: boolean) => void} lost see `ConnectionHooks`
 * @property {import('./data-channels.js').DataChannelHooks} data
 * @property {(endpoint: Endpoint, event: import('./types.js').ServerEvent) => void} deliver
 * @property {(endpoint: Endpoint, reason: import('./transport/index.js').ChannelEnd) => void} silenced no more events
 */

export class Endpoint {
  /** Media flows, or there is none to flow. */
  isUp = false;
  /** Beyond repair; its media may still flow. */
  isLost = false;
  /** Of the session when it joined; events about earlier ones do not concern it. */
  epoch = -1;
  statsReader = new StatsReader();
  #participant;
  #hooks;
  #options;
  /** @type {EventChannel | null} */
  #channel = null;

  /**
   * @param {import('./participant-api.js').ParticipantApi} participant
   * @param {{ iceServers: RTCIceServer[], relayOnly?: boolean, transport?: import('./types.js').TransportName }} options
   * @param {EndpointHooks} hooks
   */
  constructor(participant, options, hooks) {
    this.#participant = participant;
    this.#options = options;
    this.#hooks = hooks;
    this.api = new EndpointApi(participant);
    this.connection = new Connection(options, this.api, {
      stateChanged: (state) => this.#setUp(state === 'connected'),
      subscribed: (tracks) => hooks.subscribed(this, tracks),
      published: (tracks) => hooks.published(this, tracks),
      identify: hooks.identify,
      data: hooks.data,
      lost: (error, ended) => {
        this.isLost = true;
        hooks.lost(this, error, ended);
      },
    });
  }

  get id() {
    return this.api.id;
  }

  /** The event transport in use, null while it reconnects. */
  get transport() {
    return this.#channel?.transport ?? null;
  }

  /**
   * Joins with an offer of what is published, and of the data channels.
   * @param {Set<import('./publication.js').LocalPublication>} publications
   * @param {{ name?: string, lastN?: number, maxBitrate?: number, signal?: AbortSignal, attempts?: number, patience?: number }} options
   */
  async join(publications, { name, lastN, maxBitrate, ...options }) {
    await this.connection.sync(publications);
    const offer = await this.connection.prepareFirst();
    // What is undefined is not sent: an older server would not know it.
    const bitrates = maxBitrate === undefined ? undefined : { max_bps: maxBitrate };
    const body = { endpoint_id: this.id, name, server_offers: false, offer, last_n: lastN, bitrates };
    const reply = await this.#participant.join(body, options);
    if (!reply.answer) throw new SwitchyardError('out_of_step', 'the join reply has no answer');
    this.api.joined(reply);
    this.epoch = reply.epoch ?? -1;
    await this.connection.joined(reply);
    if (publications.size === 0) this.isUp = true;
    return reply;
  }

  /** Begins to bring its events, from the join on. */
  listen() {
    if (this.#channel) return;
    this.#channel = new EventChannel(this.api, {
      transport: this.#options.transport,
      deliver: (event) => this.#hooks.deliver(this, event),
      ended: (reason) => this.#hooks.silenced(this, reason),
    });
    this.#channel.start();
  }

  /** Ends the media; events of the session may go on. */
  hangUp() {
    this.isUp = false;
    this.connection.close();
  }

  /** Ends the events; media may go on. */
  silence() {
    this.#channel?.close();
    this.#channel = null;
  }

  close() {
    this.hangUp();
    this.silence();
  }

  /** @param {boolean} up */
  #setUp(up) {
    if (this.isUp === up) return;
    this.isUp = up;
    this.#hooks.changed(this);
  }
}
