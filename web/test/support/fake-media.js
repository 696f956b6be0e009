/**
 * Just enough of WebRTC for the room's own logic: m-lines with mids, offer/answer states, and a test that
 * decides when it is connected. What real browsers do is tested with real browsers.
 */

export class FakeTrack extends EventTarget {
  enabled = true;
  stopped = false;
  contentHint = '';

  constructor(kind) {
    super();
    this.kind = kind;
  }

  stop() {
    this.stopped = true;
  }
}

class FakeTransceiver {
  mid = null;
  currentDirection = null;

  constructor(kind, track, direction) {
    this.direction = direction;
    this.receiver = { track: new FakeTrack(kind), transport: null, getSynchronizationSources: () => [] };
    this.received = { packetsReceived: 0, framesDecoded: 0 };
    this.sender = {
      track,
      transport: null,
      replaceTrack: async (next) => {
        this.sender.track = next;
      },
      getStats: async () => new Map(),
    };
  }
}

export class FakeDataChannel extends EventTarget {
  readyState = 'connecting';
  bufferedAmount = 0;
  /** Frames that went out. */
  sent = [];

  constructor(label, options) {
    super();
    this.label = label;
    this.options = options;
  }

  send(frame) {
    this.sent.push(frame);
  }

  open() {
    this.readyState = 'open';
    this.dispatchEvent(new Event('open'));
  }

  /** The server says something. */
  receive(frame) {
    this.dispatchEvent(new MessageEvent('message', { data: typeof frame === 'object' && !(frame instanceof ArrayBuffer) ? JSON.stringify(frame) : frame }));
  }

  close() {
    if (this.readyState === 'closed') return;
    this.readyState = 'closed';
    this.dispatchEvent(new Event('close'));
  }
}

export class FakePeerConnection extends EventTarget {
  /** All that were made, in order. @type {FakePeerConnection[]} */
  static made = [];
  signalingState = 'stable';
  connectionState = 'new';
  localDescription = null;
  remoteDescription = null;
  currentRemoteDescription = null;
  iceRestarts = 0;
  /** Of both labels, in the order in which they were made. @type {FakeDataChannel[]} */
  channels = [];
  sctp = { state: 'connected', transport: null };
  #transceivers = [];
  #configuration;

  constructor(configuration) {
    super();
    this.#configuration = configuration;
    FakePeerConnection.made.push(this);
  }

  getConfiguration() {
    return this.#configuration;
  }

  setConfiguration(configuration) {
    this.#configuration = configuration;
  }

  getTransceivers() {
    return this.#transceivers;
  }

  addTransceiver(track, { direction, sendEncodings = [] }) {
    const transceiver = new FakeTransceiver(track.kind, track, direction);
    transceiver.sendEncodings = sendEncodings;
    this.#transceivers.push(transceiver);
    return transceiver;
  }

  createDataChannel(label, options) {
    const channel = new FakeDataChannel(label, options);
    this.channels.push(channel);
    return channel;
  }

  /** The newest of this label. */
  channel(label) {
    return this.channels.findLast((channel) => channel.label === label);
  }

  restartIce() {
    this.iceRestarts += 1;
  }

  async addIceCandidate() {}

  /** Everything that came: what tests count up in place of a network. */
  arrived = 0;

  /** Media arrives on an m-line. */
  receive(mid, figures = { packetsReceived: 50, framesDecoded: 5 }) {
    this.arrived += 1;
    Object.assign(this.#transceivers.find((transceiver) => transceiver.mid === mid).received, figures);
  }

  async getStats() {
    const report = new Map([['T', { type: 'transport', packetsReceived: this.arrived }]]);
    for (const { mid, direction, receiver, received } of this.#transceivers) {
      if (direction !== 'recvonly') continue;
      report.set(`I${mid}`, { type: 'inbound-rtp', mid, kind: receiver.track.kind, ...received });
    }
    return report;
  }

  async createOffer() {
    return { type: 'offer', sdp: '' };
  }

  async createAnswer() {
    return { type: 'answer', sdp: '' };
  }

  async setLocalDescription(description) {
    await null;
    if (description?.type === 'rollback') {
      this.signalingState = 'stable';
      return;
    }
    const answering = this.signalingState === 'have-remote-offer';
    for (const transceiver of this.#transceivers) transceiver.mid ??= String(this.#transceivers.indexOf(transceiver));
    this.localDescription = { type: answering ? 'answer' : 'offer', sdp: this.#lines() };
    this.signalingState = answering ? 'stable' : 'have-local-offer';
    if (answering) this.#settle();
  }

  /** A server offer is JSON here: the m-lines that it adds, `[{mid, kind}]`. */
  async setRemoteDescription({ type, sdp }) {
    await null;
    this.remoteDescription = { type, sdp };
    if (type === 'offer') {
      this.signalingState = 'have-remote-offer';
      for (const { mid, kind } of JSON.parse(sdp)) {
        if (this.#transceivers.some((transceiver) => transceiver.mid === mid)) continue;
        const transceiver = new FakeTransceiver(kind, null, 'recvonly');
        transceiver.mid = mid;
        this.#transceivers.push(transceiver);
      }
    } else {
      this.signalingState = 'stable';
      this.#settle();
    }
  }

  /** What a test does in place of ICE and DTLS. */
  become(state) {
    this.connectionState = state;
    if (state === 'connected') for (const channel of this.channels) if (channel.readyState === 'connecting') channel.open();
    this.dispatchEvent(new Event('connectionstatechange'));
  }

  close() {
    this.connectionState = 'closed';
    this.signalingState = 'closed';
  }

  #lines() {
    return this.#transceivers.map(({ mid, direction }) => `${mid} ${direction}`).join('\n');
  }

  #settle() {
    this.currentRemoteDescription = this.remoteDescription;
    for (const transceiver of this.#transceivers) transceiver.currentDirection = transceiver.direction;
  }
}
