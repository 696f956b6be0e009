//! What was forwarded, and why the rest was not.

/// Counts since the session began. Every received packet raises exactly one of the first group; every
/// wish to forward one raises exactly one of the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets accepted for forwarding (to any number of subscriptions, also none).
    pub accepted: u64,
    /// Received for a publication that is not there (any more).
    pub unknown_publication: u64,
    /// Received for an encoding that the publication does not have.
    pub unknown_encoding: u64,
    /// Received while the publication was muted.
    pub muted: u64,
    /// Received late, from the source that the publication has replaced.
    pub replaced_source: u64,

    /// Accepted, and forwarded to nobody here, because the publication is held.
    pub held: u64,

    /// Packets handed out, once per subscription.
    pub forwarded: u64,
    /// Not forwarded because the subscriber cannot receive yet.
    pub inactive: u64,
    /// Not forwarded because the subscription still waits for a keyframe.
    pub awaiting_keyframe: u64,
    /// Not forwarded because the subscription should get nothing.
    pub paused: u64,
    /// Not forwarded because the subscription gets another encoding.
    pub other_encoding: u64,
    /// Not forwarded because it is of a layer that the subscription should not get.
    pub withheld: u64,
    /// Not forwarded because the packet is older than where the subscription (re)started.
    pub before_start: u64,

    /// Keyframe requests handed out for publishers.
    pub keyframe_requests: u64,
}

impl Counters {
    /// All drops together; what a subscription should not get is none.
    pub fn drops(&self) -> u64 {
        self.unknown_publication
            + self.unknown_encoding
            + self.muted
            + self.replaced_source
            + self.inactive
            + self.awaiting_keyframe
            + self.before_start
    }
}
