/** Tracks as the room shows them: someone else's (`Publication`) and our own (`LocalPublication`). */

export class Publication {
  /**
   * @param {string} id
   * @param {import('./types.js').TrackKind} kind
   * @param {import('./types.js').TrackSource} source
   * @param {boolean} muted
   */
  constructor(id, kind, source, muted) {
    this.id = id;
    this.kind = kind;
    this.source = source;
    this.muted = muted;
    /** What this browser cannot decode it for, such as `video/AV1`. @type {string | null} */
    this.refused = null;
    /** Our way to the server carries too little for it: nothing comes until that has changed. */
    this.suspended = false;
    /** A camera that the server leaves out of a large room, because others spoke later, until its owner speaks or we pin it. */
    this.held = false;
    /** What to play: set while subscribed. @type {MediaStreamTrack | null} */
    this.track = null;
    /** The m-line that carries it to us. @type {string | null} */
    this.mid = null;
    /** Of that m-line. @type {RTCRtpReceiver | null} */
    this.receiver = null;
    /** Ids that it had before its publisher joined again: an older endpoint of ours may still get those. @type {Set<string>} */
    this.formerIds = new Set();
  }
}

export class LocalPublication {
  /**
   * @param {string} id
   * @param {MediaStreamTrack} track
   * @param {import('./types.js').TrackSource} source
   * @param {boolean} muted
   * @param {boolean} [simulcast]
   */
  constructor(id, track, source, muted, simulcast = true) {
    /** Changes when we join again; to the others it stays the same publication. */
    this.id = id;
    this.kind = /** @type {import('./types.js').TrackKind} */ (track.kind);
    this.track = track;
    this.source = source;
    this.muted = muted;
    /** Whether a large picture is sent in several sizes at once. */
    this.simulcast = simulcast;
    /** Where `id` is known. @type {import('./connection.js').Connection | null} */
    this.home = null;
    /** What the server was last told there; it differs from `muted` only while a request is on its way. */
    this.serverMuted = muted;
    /** That request, while there is one. @type {Promise<void> | null} */
    this.syncing = null;
    track.enabled = !muted;
  }
}
