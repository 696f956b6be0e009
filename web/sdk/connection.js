/**
 * One WebRTC connection to one endpoint of the server: the `RTCPeerConnection`, its negotiation, its
 * candidates, and the watch over its ICE and DTLS and over what arrives. A rejoin makes a new one.
 */

import { LocalCandidates, RemoteCandidates } from './candidates.js';
import { DataChannels } from './data-channels.js';
import { encodingsFor, sendOnly } from './encodings.js';
import { SwitchyardError } from './errors.js';
import { Liveness } from './liveness.js';
import { Negotiator } from './negotiator.js';

/** ICE "disconnected" often heals by itself; after this long it is restarted. */
const RESTART_AFTER_MS = 1500;
/** An ICE restart that has not connected by then is over: rejoin. Within the server's grace time (10 s). */
const GIVE_UP_AFTER_MS = 9000;
/** Servers learnt from the join reply come too late for the first gathering; it is repeated if needed. */
const RELAY_AFTER_MS = 2500;
/** A relay's credentials that are good for less than this are renewed before they are used again. Milliseconds. */
const RENEW_BEFORE_MS = 60_000;
/** Whoever has lost its network cannot ask, and restarts with what it has. Milliseconds. */
const RENEW_TIMEOUT_MS = 1500;
/** A path that is silent is not renewed more often than that. Milliseconds. */
const RENEW_PATH_INTERVAL_MS = 5000;
/** How often it is looked whether anything arrives. Milliseconds. */
const LOOK_INTERVAL_MS = 250;
/** While it stays silent, the server is asked again after this long. Milliseconds. */
const ASK_INTERVAL_MS = 2000;

/**
 * @typedef {object} ConnectionHooks
 * @property {(state: 'connected' | 'interrupted') => void} stateChanged
 * @property {(tracks: import('./types.js').SubscribedTrack[], connection: Connection) => void} subscribed
 * @property {(tracks: import('./types.js').TrackInfo[]) => void} published
 * @property {(publication: LocalPublication) => string} identify a track id for a publication that is new here
 * @property {(error: SwitchyardError, ended: boolean) => void} lost beyond repair here. It is left
 *   open: unless `ended`, media may still flow, and only the way to command it is gone
 * @property {import('./data-channels.js').DataChannelHooks} data
 */

/** @typedef {import('./publication.js').LocalPublication} LocalPublication */

export class Connection {
  #api;
  #hooks;
  #negotiator;
  #localCandidates = new LocalCandidates();
  #remoteCandidates;
  /** Transceivers that we made, to publish; the server's are never reused for that. */
  /** @type {Map<RTCRtpTransceiver, LocalPublication | null>} */
  #own = new Map();
  /** In how many encodings each of those sends. @type {WeakMap<RTCRtpTransceiver, number>} */
  #sizes = new WeakMap();
  /** How many encodings the server wants of a track, where it said so. @type {Map<string, number>} */
  #demand = new Map();
  /** Senders whose encodings are being changed. @type {Set<RTCRtpSender>} */
  #adjusting = new Set();
  /** Each connection publishes under track ids of its own. @type {Map<LocalPublication, string>} */
  #ids = new Map();
  #closed = false;
  #lost = false;
  #liveness = new Liveness();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #lookTimer;
  /** The newest of what was seen to arrive: media by its time, everything by count. */
  #newestSource = 0;
  #arrived = 0;
  #askedAt = -Infinity;
  #renewedAt = -Infinity;
  #relaysUnused = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #restartTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #giveUpTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #relayTimer;
  /** @type {RTCDtlsTransport | null} */
  #dtls = null;
  #online = () => {
    if (this.peer.connectionState !== 'connected') this.restartIce().catch(() => {});
  };

  /**
   * @param {{ iceServers: RTCIceServer[], relayOnly?: boolean }} ice
   * @param {import('./participant-api.js').EndpointApi} api
   * @param {ConnectionHooks} hooks
   */
  constructor({ iceServers, relayOnly = false }, api, hooks) {
    this.#hooks = hooks;
    this.#api = api;
    this.peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceServers, iceTransportPolicy: relayOnly ? 'relay' : 'all' });
    this.data = new DataChannels(this.peer, hooks.data);
    this.#remoteCandidates = new RemoteCandidates(this.peer);
    this.#negotiator = new Negotiator(this.peer, {
      sendOffer: (offer) => api.offer(offer),
      sendAnswer: (answer) => api.answer(answer),
      describeTracks: () => this.#describeTracks(),
      published: (tracks) => hooks.published(tracks),
      subscribed: (tracks) => {
        this.#remoteCandidates.apply();
        hooks.subscribed(tracks, this);
      },
      broken: (error) => this.#lose(error),
    });
    this.peer.addEventListener('icecandidate', ({ candidate }) => this.#localCandidates.add(candidate));
    this.peer.addEventListener('connectionstatechange', () => this.#watch());
    globalThis.addEventListener?.('online', this.#online);
  }

  get revision() {
    return this.#negotiator.completed;
  }

  get closed() {
    return this.#closed;
  }

  /** Whether anything came from the media server within the last moment. */
  get isFlowing() {
    return !this.#closed && this.#liveness.isFlowing(performance.now());
  }

  /** Whether an offer of either side was ever answered. */
  get negotiated() {
    return this.peer.currentRemoteDescription !== null;
  }

  /** The first offer, for the join request. */
  prepareFirst() {
    return this.#negotiator.prepareFirst();
  }

  /**
   * The join reply: candidates know their way now, and the first offer has its answer.
   * @param {import('./types.js').JoinReply} reply
   */
  async joined(reply) {
    if (reply.ice_servers.length > 0) {
      const known = this.peer.getConfiguration();
      this.#relaysUnused = (known.iceServers ?? []).length === 0;
      this.peer.setConfiguration({ ...known, iceServers: reply.ice_servers });
    }
    this.#localCandidates.open((candidates) => this.#sendCandidates(candidates));
    this.#lookTimer = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
    if (reply.answer) {
      await this.#negotiator.acceptFirst(reply.answer, reply.tracks);
      this.#remoteCandidates.apply();
      this.#watch();
      // By relays alone there is nothing else to wait for.
      const patience = this.peer.getConfiguration().iceTransportPolicy === 'relay' ? 0 : RELAY_AFTER_MS;
      if (this.#relaysUnused) this.#relayTimer = setTimeout(this.#online, patience);
    }
  }

  /**
   * Gives every publication an m-line and frees those of publications that are gone; the next offer
   * says so.
   * @param {Set<LocalPublication>} publications
   * @returns {Promise<boolean>} whether there is something to offer
   */
  async sync(publications) {
    const changes = [];
    for (const [transceiver, user] of this.#own) {
      if (!user || publications.has(user)) continue;
      this.#own.set(transceiver, null);
      transceiver.direction = 'inactive';
      changes.push(transceiver.sender.replaceTrack(null));
    }
    for (const publication of publications) {
      if (!this.#transceiverOf(publication)) changes.push(this.#attach(publication));
    }
    await Promise.all(changes);
    return changes.length > 0;
  }

  /**
   * Sends another track in a publication's place; nothing is negotiated.
   * @param {LocalPublication} publication
   * @param {MediaStreamTrack} track
   */
  async replace(publication, track) {
    await this.#transceiverOf(publication)?.sender.replaceTrack(track);
  }

  /** Offers local changes; see `Negotiator.negotiate`. */
  async negotiate() {
    await this.#negotiator.negotiate();
  }

  /** New ICE credentials and candidates, for a path that changed (RFC 8445, section 9). */
  async restartIce() {
    if (this.#closed || !this.negotiated) return;
    this.#relaysUnused = false;
    this.#giveUpTimer ??= setTimeout(() => {
      this.#giveUpTimer = undefined;
      if (this.peer.connectionState !== 'connected') {
        this.#lose(new SwitchyardError('out_of_step', 'no path to the media server'));
      }
    }, GIVE_UP_AFTER_MS);
    await this.#renewCredentials();
    if (this.#closed) return;
    this.peer.restartIce();
    await this.negotiate();
  }

  /** Not again while a restart may still connect. */
  #renewPath() {
    const now = performance.now();
    if (now - this.#renewedAt < RENEW_PATH_INTERVAL_MS) return;
    this.#renewedAt = now;
    this.restartIce().catch(() => {});
  }

  /** The user name of a relay begins with the second at which it expires (docs/API.md). */
  async #renewCredentials() {
    const known = this.peer.getConfiguration();
    const isStale = (known.iceServers ?? []).some(({ username }) => {
      const expires = /^(\d+):/.exec(username ?? '')?.[1];
      return expires !== undefined && Number(expires) * 1000 < Date.now() + RENEW_BEFORE_MS;
    });
    if (!isStale) return;
    try {
      const iceServers = await this.#api.iceServers(AbortSignal.timeout(RENEW_TIMEOUT_MS));
      if (!this.#closed) this.peer.setConfiguration({ ...known, iceServers });
    } catch {
      // Most paths need no relay.
    }
  }

  /** @param {import('./types.js').ServerOffer} offer */
  handleServerOffer(offer) {
    this.#negotiator.handleServerOffer(offer);
  }

  /** @param {RTCIceCandidateInit[]} candidates */
  handleCandidates(candidates) {
    this.#remoteCandidates.add(candidates);
  }

  /**
   * The server says how many encodings of one of our tracks anybody watches.
   * @param {string} trackId
   * @param {number} encodings from the lowest up
   */
  async setDemand(trackId, encodings) {
    this.#demand.set(trackId, encodings);
    const publication = [...this.#ids].find(([, id]) => id === trackId)?.[0];
    const sender = publication && this.senderOf(publication);
    if (!sender || this.#adjusting.has(sender)) return;
    this.#adjusting.add(sender);
    try {
      await sendOnly(sender, () => this.#demand.get(trackId) ?? Infinity);
    } catch {
      // What is sent for nobody costs, and harms nothing else.
    } finally {
      this.#adjusting.delete(sender);
    }
  }

  /**
   * What arrives on an m-line.
   * @param {string} mid
   * @returns {MediaStreamTrack | null}
   */
  trackByMid(mid) {
    return this.receiverOf(mid)?.track ?? null;
  }

  /** @param {LocalPublication} publication */
  midOf(publication) {
    return this.#transceiverOf(publication)?.mid ?? null;
  }

  /** @param {LocalPublication} publication */
  senderOf(publication) {
    return this.#transceiverOf(publication)?.sender ?? null;
  }

  /** @param {string} mid */
  receiverOf(mid) {
    return this.peer.getTransceivers().find((transceiver) => transceiver.mid === mid)?.receiver ?? null;
  }

  /** It will not be used any more: from now on the end of its media is its end. */
  giveUp() {
    this.#lost = true;
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#restartTimer);
    clearTimeout(this.#giveUpTimer);
    clearTimeout(this.#relayTimer);
    clearInterval(this.#lookTimer);
    globalThis.removeEventListener?.('online', this.#online);
    this.#localCandidates.close();
    this.#negotiator.close();
    this.data.close();
    this.peer.close();
  }

  /** @param {LocalPublication} publication */
  #idOf(publication) {
    const id = this.#ids.get(publication) ?? this.#hooks.identify(publication);
    this.#ids.set(publication, id);
    return id;
  }

  /** @param {LocalPublication} publication */
  #transceiverOf(publication) {
    for (const [transceiver, user] of this.#own) if (user === publication) return transceiver;
    return null;
  }

  /**
   * An m-line that was ours and is negotiated as inactive is taken again, so that toggling a screen
   * share does not make the description grow.
   * @param {LocalPublication} publication
   */
  async #attach(publication) {
    const sendEncodings = encodingsFor(publication);
    const sizes = sendEncodings.length || 1;
    for (const [transceiver, user] of this.#own) {
      if (this.#sizes.get(transceiver) !== sizes) continue; // they are fixed for good
      const free = !user && transceiver.currentDirection === 'inactive' && transceiver.direction === 'inactive';
      if (free && transceiver.receiver.track.kind === publication.kind) {
        this.#own.set(transceiver, publication);
        transceiver.direction = 'sendonly';
        await transceiver.sender.replaceTrack(publication.track);
        // The track before may have ended unwatched.
        await sendOnly(transceiver.sender, () => Infinity).catch(() => {});
        return;
      }
    }
    const transceiver = this.peer.addTransceiver(publication.track, { direction: 'sendonly', sendEncodings });
    this.#sizes.set(transceiver, sizes);
    this.#own.set(transceiver, publication);
  }

  /** See `NegotiatorHooks.describeTracks`: what is detached meanwhile is still in the offer being made. */
  #describeTracks() {
    const noted = [...this.#own];
    return () => {
      /** @type {import('./types.js').TrackDescription[]} */
      const tracks = [];
      for (const [transceiver, publication] of noted) {
        if (!publication || transceiver.mid === null) continue;
        const { source, muted } = publication;
        tracks.push({ mid: transceiver.mid, source, track_id: this.#idOf(publication), muted });
      }
      return tracks;
    };
  }

  /** @param {RTCIceCandidateInit[]} candidates */
  async #sendCandidates(candidates) {
    try {
      await this.#api.candidates(candidates);
    } catch (error) {
      if (error instanceof SwitchyardError && error.code === 'endpoint_gone') this.#lose(error);
      // Otherwise one path less; when none is left, an ICE restart or a rejoin repairs it.
    }
  }

  #watch() {
    if (this.#closed) return;
    this.#watchDtls();
    const state = this.peer.connectionState;
    if (state === 'connected') {
      clearTimeout(this.#restartTimer);
      clearTimeout(this.#giveUpTimer);
      this.#giveUpTimer = undefined;
      this.#hooks.stateChanged('connected');
    } else if (state === 'disconnected') {
      this.#restartLater(RESTART_AFTER_MS);
    } else if (state === 'failed') {
      this.#restartLater(0);
    } else if (state === 'closed') {
      this.#lose(new SwitchyardError('endpoint_gone', 'the connection was closed'), true);
    }
  }

  /** @param {number} milliseconds */
  #restartLater(milliseconds) {
    clearTimeout(this.#restartTimer);
    this.#restartTimer = setTimeout(() => {
      if (this.#closed || this.peer.connectionState === 'connected') return;
      this.#hooks.stateChanged('interrupted');
      // Offline, every request would fail; `online` restarts as well, and the give-up timer bounds both.
      this.restartIce().catch(() => {});
    }, milliseconds);
  }

  /** DTLS has no restart: a closed or failed one is the server letting go of this endpoint. */
  #watchDtls() {
    if (this.#dtls) return;
    const [transceiver] = this.peer.getTransceivers();
    const { sctp } = this.peer;
    this.#dtls = transceiver?.sender.transport ?? transceiver?.receiver.transport ?? sctp?.transport ?? null;
    this.#dtls?.addEventListener('statechange', () => {
      const state = this.#dtls?.state;
      if (state !== 'closed' && state !== 'failed') return;
      this.#lose(new SwitchyardError('endpoint_gone', 'the media server ended the connection'), true);
    });
  }

  /** Whether anything arrived since the last look; after an unusual silence the server is asked. */
  async #look() {
    const media = this.#mediaArrived();
    const arrived = media || (await this.#anythingArrived());
    if (media) this.#arrived = Infinity; // not counted meanwhile: the next count only begins
    if (this.#closed) return;
    const now = performance.now();
    this.#liveness.observe(now, arrived);
    if (this.#lost) {
      if (!this.#liveness.isFlowing(now)) this.#lose(new SwitchyardError('endpoint_gone', 'the media server is gone'), true);
      return;
    }
    if (!this.#liveness.isSilent(now) || now - this.#askedAt < ASK_INTERVAL_MS) return;
    this.#askedAt = now;
    const answer = await this.#api.probe();
    if (answer === 'gone') this.#lose(new SwitchyardError('endpoint_gone', 'the media server is gone'));
    // Commands get there and media does not: it is the path, and the browser may take five seconds more to say so.
    else if (answer === 'there' && this.#liveness.isSilent(performance.now())) this.#renewPath();
  }

  /** By the sources of the receivers, which cost next to nothing to read. */
  #mediaArrived() {
    for (const { receiver } of this.peer.getTransceivers()) {
      for (const { timestamp } of receiver.getSynchronizationSources()) {
        if (timestamp <= this.#newestSource) continue;
        this.#newestSource = timestamp;
        return true;
      }
    }
    return false;
  }

  /** By everything that comes on the transport: media, feedback, answers to ICE checks. */
  async #anythingArrived() {
    let arrived = 0;
    const report = await this.peer.getStats().catch(() => new Map());
    for (const stats of /** @type {Map<string, any>} */ (report).values()) {
      if (stats.type === 'transport') arrived += stats.packetsReceived ?? 0;
      else if (stats.type === 'candidate-pair') arrived += stats.responsesReceived ?? 0;
    }
    const more = arrived > this.#arrived; // never after media: that came in the look before
    this.#arrived = arrived;
    return more;
  }

  /** @param {SwitchyardError} error @param {boolean} [ended] */
  #lose(error, ended = false) {
    // Once more when the media, too, has come to its end.
    if (this.#closed || (this.#lost && !ended)) return;
    this.#lost = true;
    this.#hooks.lost(error, ended);
  }
}
