//! The media plane as the control plane sees it: a handle, commands in, events out.
//!
//! ```text
//!   control plane (tokio) ──MediaPlane──▶ media thread 0: its UDP socket, its endpoints, sfu core
//!                         ◀─MediaEvent───      ▲ │ exchange (rooms that span threads)
//!                                              │ ▼
//!                                         media thread 1 … : the same UDP port
//! ```
//!
//! A media thread ("shard") owns its socket and its endpoints outright; nothing on the packet path is shared.
//! Calls are answered by that thread; dropping a returned future abandons the wait, not the call.
//!
//! | module | is |
//! |---|---|
//! | `plane`, `directory`, `limits` | [`MediaPlane`], the handle; which endpoint lives on which shard; whether there is room |
//! | `control` | [`MediaControl`], its calls as a trait: what the control plane sees |
//! | `thread` | the loop: socket, requests, timers |
//! | `socket`, `demux` | the shard's socket, in batches both ways; whose a datagram is |
//! | `tcp` | ICE over TCP: connections whose frames are datagrams |
//! | `hub`, `pipeline` | all endpoints and pipelines of the shard, and what goes between them |
//! | `news` | whose connection has become better or worse, told together |
//! | `stage` | whose cameras are sent, where a session limits them |
//! | `treatment` | a session's settings, for one endpoint |
//! | `exchange` | what shards send each other |
//! | `drops`, `repairs`, `durations` | what is counted for the metrics |
//! | `endpoint` | one client: m-lines, offers and answers, its RTP |
//! | `negotiation` | revisions, collisions, coalescing of server offers (pure) |
//! | `sdp`, `codecs`, `encodings` | descriptions, read and written; codecs and header extensions; simulcast |
//! | `transport` | ICE-lite, DTLS, SRTP, SCTP |
//! | `data` | data channels: framing, bounds, what a message becomes |
//! | `rtp` | packets, repair, reports, transport-wide feedback |
//!
//! DTLS and SRTP are webrtc-rs' (`rtc`), used below its peer connection. Its peer connection is made for
//! clients: it puts new tracks into a client's m-lines, stops what turns inactive, changes state before
//! it refuses, and each packet costs more the more m-lines there are. Here SDP is planned completely
//! before anything changes, and a packet's cost does not depend on the number of m-lines.

mod codecs;
mod control;
mod data;
mod demux;
mod directory;
mod drops;
mod durations;
mod encodings;
mod endpoint;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod hub;
mod limits;
mod negotiation;
mod news;
mod pipeline;
mod plane;
mod repairs;
mod rtp;
mod sdp;
mod socket;
mod stage;
mod tcp;
mod thread;
mod transport;
mod treatment;

pub use control::MediaControl;
pub use data::DataStats;
pub use drops::{Drops, Reason};
pub use durations::{BOUNDS_US as FORWARD_BOUNDS_US, Durations};
pub(crate) use endpoint::Unconnected;
pub use endpoint::{Step, Suspensions};
pub use plane::MediaPlane;
pub use repairs::Repairs;
pub use tcp::TcpPort;
pub(crate) use tcp::neighbourhood;
pub use treatment::Treatment;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use common::message::{
    Answer, Candidate, EventBody, Fixed, IceFragment, ParticipantQuality, Speaking, SubscribedTrack,
};
use common::model::{EndpointId, NetworkSummary, ParticipantId, PipelineId, Track, TrackId};

/// Where the media socket listens and what its candidates say.
#[derive(Debug, Clone)]
pub struct MediaConfig {
    /// One UDP port for all endpoints; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Addresses to announce in host candidates, with the bound port. Empty: the listen address, or
    /// every usable interface address when that is unspecified.
    pub public_addresses: Vec<IpAddr>,
    /// Where clients whose network lets no UDP through connect to; announced with the same addresses.
    pub tcp: TcpPort,
    /// After the first offer to an endpoint, further server offers are at least this far apart and
    /// carry everything that changed meanwhile.
    pub offer_interval: Duration,
    /// Silence after which an endpoint counts as disconnected.
    pub disconnected_after: Duration,
    /// Further silence after which it is closed; an ICE restart within it starts it anew.
    pub grace: Duration,
    /// Media threads; 0: one for every two cores, at most [`MAX_DEFAULT_THREADS`]. At most [`MAX_THREADS`].
    pub threads: usize,
    /// Endpoints and tracks (published and subscribed) of one room that share a media thread before the room spreads
    /// to the next one. A room that stays on one thread is cheapest; one that spreads can use more than a core.
    pub endpoints_together: usize,
    pub tracks_together: usize,
    /// Endpoints of this worker; more are refused with [`MediaError::Full`].
    pub max_endpoints: usize,
    /// Packets sent in a second; above it no endpoint is opened ([`MediaError::Full`]), and what is there goes on.
    /// 0: [`PACKETS_PER_THREAD`] for each media thread.
    pub max_packets_per_second: u64,
    /// Published and subscribed tracks together; from there on no endpoint is opened and no further track published
    /// ([`MediaError::Full`]).
    pub max_tracks: usize,
    /// Where the estimate of a client's path begins, and its bounds, in bit/s.
    pub bandwidth: sfu::bandwidth::Config,
    /// When a client's path carries less than so many bit/s, no video is sent to it.
    pub suspend_video_below: u64,
    /// Resident memory of the process above which no endpoint is opened; 0: nine tenths of what the machine or the
    /// container has.
    pub max_memory_bytes: u64,
}

/// Media threads by default: more cores are left to everything else on the machine. A client's datagrams arrive at any of
/// them and are handed over, so on few cores one thread does more than two (`docs/BENCHMARKS.md`).
pub const MAX_DEFAULT_THREADS: usize = 4;
/// What a media thread sends in a second with half of its time.
pub const PACKETS_PER_THREAD: u64 = 200_000;
/// Media threads at most.
pub const MAX_THREADS: usize = 64;

impl Default for MediaConfig {
    /// Listens on any port of all IPv4 addresses; sizes for a laptop and for a large machine alike.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            public_addresses: Vec::new(),
            tcp: TcpPort::Same,
            offer_interval: Duration::from_millis(250),
            disconnected_after: Duration::from_secs(5),
            grace: Duration::from_secs(10),
            threads: 0,
            endpoints_together: 1_000,
            tracks_together: 2_000,
            max_endpoints: 10_000,
            max_packets_per_second: 0,
            max_tracks: 200_000,
            bandwidth: sfu::bandwidth::Config::default(),
            suspend_video_below: 40_000,
            max_memory_bytes: 0,
        }
    }
}

/// A new endpoint, before any SDP.
#[derive(Debug, Clone)]
pub struct OpenEndpoint {
    pub endpoint_id: EndpointId,
    pub pipeline_id: PipelineId,
    pub participant_id: ParticipantId,
    pub can_publish: bool,
    pub can_subscribe: bool,
    /// The server makes the first offer as soon as there is a track to subscribe to. Otherwise it
    /// waits for the client's first offer.
    pub server_offers: bool,
    pub treatment: Treatment,
    /// The client's first offer is its last, and the server never offers: what the m-lines that it receives on carry is
    /// chosen among these tracks, as they come and go.
    pub fixed: Option<Fixed>,
}

/// What became of a fragment about ICE.
#[derive(Debug, Clone, PartialEq)]
pub enum IceOutcome {
    /// Its candidates were taken.
    Taken,
    /// Its credentials were new ones: this is the server's new side.
    Restarted(IceFragment),
}

/// What one accepted client offer changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Negotiated {
    pub answer: Answer,
    /// All tracks of the endpoint after this offer.
    pub tracks: Vec<Track>,
    pub published: Vec<Track>,
    pub unpublished: Vec<TrackId>,
}

/// Why the media plane refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    #[error("the endpoint is closed")]
    EndpointGone,
    #[error("the server's own offer is outstanding")]
    OfferCollision,
    #[error("no offer is waiting for this answer")]
    NoOfferPending,
    #[error("unacceptable sdp: {0}")]
    InvalidSdp(String),
    #[error("unacceptable candidate: {0}")]
    InvalidCandidate(String),
    #[error("the ICE session is another one")]
    PreconditionFailed,
    #[error("over the limit: {0}")]
    LimitExceeded(&'static str),
    /// This worker has no room; another one may.
    #[error("the worker is full: {0}")]
    Full(&'static str),
    #[error("the endpoint may not publish")]
    Forbidden,
    #[error("no such track")]
    TrackNotFound,
    #[error("the media thread has ended")]
    Unavailable,
}

/// An endpoint's life as its connection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    Connected,
    /// No consent or media for `disconnected_after`; the grace time runs.
    Disconnected,
    /// Over: the peer closed it, the grace time ran out or it failed. The endpoint is gone.
    Closed(CloseCause),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// DTLS close_notify from the client.
    PeerClosed,
    GraceExpired,
    /// DTLS failed, or never completed in time.
    ConnectFailed,
    /// The endpoint's own code panicked; only this endpoint ended.
    Fault,
}

/// What the media plane reports without being asked.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaEvent {
    /// A server offer to hand to the client. One at a time per endpoint.
    Offer {
        endpoint_id: EndpointId,
        revision: u64,
        sdp: String,
        tracks: Vec<SubscribedTrack>,
    },
    /// The server's candidates; the last one is empty (end-of-candidates).
    Candidates {
        endpoint_id: EndpointId,
        candidates: Vec<Candidate>,
    },
    State {
        endpoint_id: EndpointId,
        state: ConnectionState,
    },
    /// A connection has got that far, in so much time. Only where traces are recorded ([`common::spans`]).
    Step {
        endpoint_id: EndpointId,
        step: Step,
        at: SystemTime,
        took: Duration,
    },
    /// The client's answer to a server offer stopped these tracks' m-lines: they are no longer
    /// published. (What a client's own offer unpublishes is in [`Negotiated`].)
    Unpublished {
        endpoint_id: EndpointId,
        tracks: Vec<TrackId>,
    },
    /// Pictures that the client's path has no room for, or has room for again, and cameras that are not among the last that
    /// spoke, or are again.
    Suspensions {
        endpoint_id: EndpointId,
        suspensions: Suspensions,
    },
    /// The client refused a track's m-line: it cannot decode that codec, or does not want the track.
    Refused {
        endpoint_id: EndpointId,
        track_id: TrackId,
        codec: sfu::Codec,
    },
    /// How many encodings, from the lowest up, of a track of this endpoint's are watched.
    Demand {
        endpoint_id: EndpointId,
        track_id: TrackId,
        encodings: u8,
    },
    /// Others speak now than before, or another one leads: all who speak, the loudest first.
    Speakers {
        pipeline_id: PipelineId,
        speakers: Vec<Speaking>,
    },
    /// A client's message, for endpoints whose clients have no data channel.
    Message {
        endpoints: Vec<EndpointId>,
        body: EventBody,
    },
    /// An endpoint that had been connected is over, however that came: all that is known of its connection.
    Ended(Box<NetworkSummary>),
    /// Whose connections have become better or worse.
    Quality {
        pipeline_id: PipelineId,
        participants: Vec<ParticipantQuality>,
    },
}

/// Counters since start and what there is now, for the heartbeat and `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaStats {
    pub endpoints: u64,
    pub pipelines: u64,
    /// Published tracks.
    pub tracks: u64,
    /// Published and subscribed tracks, as `max_tracks` counts them.
    pub all_tracks: u64,
    /// A limit is reached: nobody more is taken.
    pub is_full: bool,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// System calls that sent them.
    pub send_calls: u64,
    pub drops: Drops,
    pub repairs: Repairs,
    /// From taking a packet off the socket to its copies having left, one packet of every so many.
    pub forwarding: Durations,
    /// Connected endpoints by how good their connection is, from the best to the worst.
    pub qualities: [u64; 4],
    /// Calls that wait for a media thread, and what those have to say that waits for the control plane.
    pub waiting_requests: u64,
    /// How much is taken of the limit that is nearest, in thousandths.
    pub load_per_mille: u32,
    pub waiting_events: u64,
    /// TCP connections that are open, and those that were refused or closed for what they did or did not do.
    pub tcp_connections: u64,
    pub tcp_refused: u64,
    /// Endpoints whose path is estimated, and what all of these carry together, in bit/s.
    pub estimated: u64,
    pub estimated_bitrate: u64,
    /// Data channels.
    pub data: DataStats,
}

impl std::ops::AddAssign for MediaStats {
    /// Sums up shards. A pipeline that spans several is counted by each.
    fn add_assign(&mut self, other: Self) {
        self.endpoints += other.endpoints;
        self.pipelines += other.pipelines;
        self.tracks += other.tracks;
        self.all_tracks += other.all_tracks;
        self.is_full |= other.is_full;
        self.packets_in += other.packets_in;
        self.packets_out += other.packets_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.send_calls += other.send_calls;
        self.drops += other.drops;
        self.repairs += other.repairs;
        self.forwarding += other.forwarding;
        for (count, more) in self.qualities.iter_mut().zip(other.qualities) {
            *count += more;
        }
        self.waiting_requests += other.waiting_requests;
        self.waiting_events += other.waiting_events;
        self.tcp_connections += other.tcp_connections;
        self.tcp_refused += other.tcp_refused;
        self.estimated += other.estimated;
        self.estimated_bitrate = self.estimated_bitrate.saturating_add(other.estimated_bitrate);
        self.data += other.data;
    }
}
