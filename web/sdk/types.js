/**
 * The words of the HTTP API (docs/API.md) and of this SDK, as JSDoc types. No code.
 * Times are milliseconds since the Unix epoch.
 */

/** @typedef {'audio' | 'video'} TrackKind */
/** @typedef {'camera' | 'microphone' | 'screen' | 'screen_audio' | 'other'} TrackSource */
/** @typedef {'left' | 'removed' | 'connection_lost' | 'session_closed'} LeaveReason */

/**
 * A published track as the API describes it.
 * @typedef {object} TrackInfo
 * @property {string} id
 * @property {TrackKind} kind
 * @property {TrackSource} source
 * @property {boolean} muted
 * @property {string} mid the m-line of its publisher, not ours
 */

/**
 * @typedef {object} ParticipantInfo
 * @property {string} id
 * @property {string} name
 * @property {'joined' | 'connected' | 'disconnected'} state
 * @property {number} joined_at
 * @property {TrackInfo[]} tracks
 */

/**
 * What an offer says about one m-line that sends.
 * @typedef {object} TrackDescription
 * @property {string} mid
 * @property {TrackSource} source
 * @property {string} [track_id]
 * @property {boolean} [muted]
 */

/**
 * Which published track an m-line of the server carries to us.
 * @typedef {object} SubscribedTrack
 * @property {string} mid
 * @property {string} track_id
 * @property {string} participant_id
 * @property {TrackKind} kind
 * @property {TrackSource} source
 */

/**
 * @typedef {object} ServerOffer
 * @property {string} endpoint_id
 * @property {number} revision
 * @property {string} sdp
 * @property {SubscribedTrack[]} tracks everything subscribed, not only what is new
 */

/** @typedef {{ sdp: string, revision: number }} Answer */

/**
 * The reply to a join.
 * @typedef {object} JoinReply
 * @property {string} session_id
 * @property {ParticipantInfo} participant
 * @property {string} endpoint_id
 * @property {number} [epoch] of the session, as in `session.interrupted` and `session.moving`
 * @property {string} destination opaque; sent back with every request about this endpoint
 * @property {string} token the participant token
 * @property {number} token_expires_at
 * @property {RTCIceServer[]} ice_servers
 * @property {ParticipantInfo[]} participants everyone else
 * @property {Answer | null} answer
 * @property {TrackInfo[]} tracks our own
 */

/**
 * One event of the server.
 * @typedef {object} ServerEvent
 * @property {string} id
 * @property {string} session_id
 * @property {number} time
 * @property {string} type
 * @property {any} data
 */

/**
 * What somebody says, as `message` tells it.
 * @typedef {object} Message
 * @property {any} data an `ArrayBuffer`, or what JSON can say
 * @property {string} [from] participant id; absent: the application
 * @property {import('./participant.js').RemoteParticipant} [participant] who that is, while they are here
 * @property {string} [topic]
 * @property {boolean} direct it names its receivers
 */

/** @typedef {'websocket' | 'sse' | 'polling'} TransportName */

/**
 * `connecting` until media flows (or, with nobody else there and nothing published, until joined);
 * `reconnecting` while the SDK repairs by itself; `disconnected` when it gave up and waits for
 * `room.reconnect()`; `closed` is final.
 * @typedef {'connecting' | 'connected' | 'reconnecting' | 'disconnected' | 'closed'} ConnectionState
 */

/**
 * Why media stopped: the path to the media server, or the server itself.
 * @typedef {'connection_lost' | 'media_server_lost'} InterruptionCause
 */

/**
 * How good a connection is (docs/QUALITY.md).
 * @typedef {'excellent' | 'good' | 'poor' | 'lost'} ConnectionQuality
 */

/**
 * One encoding of ours as it arrives at the server.
 * @typedef {object} EncodingStats
 * @property {number} encoding counted from 0, the lowest
 * @property {string | null} rid
 * @property {boolean} alive
 * @property {number} bitrate_bps
 * @property {number} packets_lost not even repaired
 * @property {number} fraction_lost 0 to 1
 * @property {number} jitter_ms
 */

/**
 * A track of somebody else as the server sends it to us.
 * @typedef {object} SubscribedStats
 * @property {string} track_id
 * @property {'inactive' | 'muted' | 'paused' | 'suspended' | 'held' | 'awaiting_keyframe' | 'flowing'} state
 * @property {{ encoding: number, spatial: number, temporal: number } | null} current
 * @property {{ encoding: number | null, spatial: number | null, temporal: number | null } | null} target
 * @property {number} bitrate_bps
 * @property {number} retransmitted_packets_sent
 */

/**
 * The reply of `GET …/stats`, as much of it as the SDK and the demo use; docs/API.md has all of it.
 * @typedef {object} ServerStats
 * @property {string} state
 * @property {{ round_trip_time_ms: number | null, available_outgoing_bitrate_bps: number | null }} transport
 * @property {{ track_id: string, encodings: EncodingStats[] }[]} published
 * @property {SubscribedStats[]} subscribed
 */

/**
 * A track to publish.
 * @typedef {object} LocalTrackInit
 * @property {MediaStreamTrack} track
 * @property {TrackSource} [source] by default `microphone` or `camera`, by the track's kind
 * @property {boolean} [muted]
 * @property {boolean} [simulcast] send a camera in several sizes at once, so that everyone gets the one they can use; default true
 */

/**
 * What to get of a subscribed track. What is absent is not limited.
 * @typedef {object} Quality
 * @property {boolean} [paused] nothing at all
 * @property {number} [maxEncoding] the best size (simulcast), counted from 0, the lowest
 * @property {number} [maxSpatial] the highest spatial layer of that, counted from 0
 * @property {number} [maxTemporal] the highest temporal layer of that, counted from 0
 * @property {number} [priority] when not everything fits: 0 (as everything) to 3 (pinned, before everything else)
 * @property {{ width: number, height: number }} [shown] in the screen's own pixels: nothing larger comes
 */

/**
 * @typedef {object} JoinOptions
 * @property {string} [name] shown to the others; at most 256 characters
 * @property {boolean | MediaTrackConstraints | MediaStreamTrack} [audio] `true` or constraints open the microphone
 * @property {boolean | MediaTrackConstraints | MediaStreamTrack} [video] `true` or constraints open the camera
 * @property {boolean} [simulcast] for the camera, as in `LocalTrackInit`; default true
 * @property {number} [lastN] cameras to receive at most, fewer than the session's: of those who spoke last
 * @property {number} [maxBitrate] to receive, and to send on each video m-line, at most; bit/s, below the session's
 * @property {LocalTrackInit[]} [tracks] more tracks to publish with the join
 * @property {string} [participantId] to come back as a known participant (`par_…`)
 * @property {TransportName} [transport] forces one event transport; by default the best that works
 * @property {boolean} [relayOnly] media goes through TURN servers only, so that the media server learns no address of this device
 *   (`iceTransportPolicy: 'relay'`, W3C webrtc, section 4.2.1)
 * @property {string[]} [apis] base URLs of API instances; consecutive requests go round robin. By
 *   default the link's own address
 * @property {number} [rejoinAttempts] tries of one rejoin before `disconnected`; default 8, about half a minute
 * @property {number} [rejoinPatience] time for one rejoin before `disconnected`, however many tries it took;
 *   milliseconds, default 40 s
 * @property {boolean} [leaveOnPageHide] tell the server when the page goes away; default true
 * @property {AbortSignal} [signal] cancels the join; what was begun is taken back
 */

export {};
