//! What was lost, asked for again and sent again, counted for the metrics.

/// By direction, from this worker: in came from clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    pub nacks_in: u64,
    pub nacks_out: u64,
    pub keyframe_requests_in: u64,
    pub keyframe_requests_out: u64,
    /// Packets that were sent again because they were asked for.
    pub resent: u64,
    /// RTP packets of clients that did not come, and what clients say to have missed; as of the last looks.
    pub lost_in: u64,
    pub lost_out: u64,
}

impl std::ops::AddAssign for Repairs {
    fn add_assign(&mut self, other: Self) {
        self.nacks_in += other.nacks_in;
        self.nacks_out += other.nacks_out;
        self.keyframe_requests_in += other.keyframe_requests_in;
        self.keyframe_requests_out += other.keyframe_requests_out;
        self.resent += other.resent;
        self.lost_in += other.lost_in;
        self.lost_out += other.lost_out;
    }
}
