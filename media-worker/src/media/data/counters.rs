//! What data channels have done, counted since start.

use std::ops::AddAssign;

/// Figures of one channel each: reliable, lossy.
pub type PerChannel = [u64; 2];

/// See the module. Messages are counted where they enter and for each receiver that they leave to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataStats {
    /// Open channels now.
    pub open: PerChannel,
    pub messages_in: PerChannel,
    pub messages_out: PerChannel,
    pub bytes_in: PerChannel,
    pub bytes_out: PerChannel,
    /// Messages told as events to those without a channel.
    pub events: u64,
    /// Packets that no honest peer sends, or that belong to nothing.
    pub dropped_packets: u64,
    /// Messages that are none.
    pub dropped_malformed: u64,
    /// Over the size that a message, an event or its receiver takes.
    pub dropped_too_large: u64,
    /// Lossy ones for a receiver that does not keep up.
    pub dropped_slow: u64,
    /// For another media thread that does not keep up.
    pub dropped_crossing: u64,
    /// Events for which the control plane had no room.
    pub dropped_event: u64,
    /// Reliable channels closed because their receiver did not keep up, or missed something on the way.
    pub closed_slow: u64,
    /// Associations that ended by what the peer sent.
    pub ended: u64,
}

impl AddAssign for DataStats {
    fn add_assign(&mut self, other: Self) {
        for channel in 0..2 {
            self.open[channel] += other.open[channel];
            self.messages_in[channel] += other.messages_in[channel];
            self.messages_out[channel] += other.messages_out[channel];
            self.bytes_in[channel] += other.bytes_in[channel];
            self.bytes_out[channel] += other.bytes_out[channel];
        }
        self.events += other.events;
        self.dropped_packets += other.dropped_packets;
        self.dropped_malformed += other.dropped_malformed;
        self.dropped_too_large += other.dropped_too_large;
        self.dropped_slow += other.dropped_slow;
        self.dropped_crossing += other.dropped_crossing;
        self.dropped_event += other.dropped_event;
        self.closed_slow += other.closed_slow;
        self.ended += other.ended;
    }
}
