//! Why a datagram or packet was dropped, counted.

/// The reasons; one for each drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No endpoint here belongs to where it came from.
    Stranger,
    /// More handshake records wait than are kept.
    Handshake,
    /// A connectivity check that is none, or with the wrong password.
    Check,
    /// Not to be opened: unprotected, forged, replayed, or of a stream that nobody announced.
    Unprotected,
    /// Opened, and not what it should be.
    Malformed,
    /// For a data channel of an endpoint that has none.
    NoData,
    /// Sending it came too late: its connection has no path, or what it repeats is no longer kept.
    Unsendable,
    /// The kernel did not take it: a full socket buffer, no route.
    Socket,
    /// Another media thread does not keep up.
    Crossing,
    /// Of a track or an encoding that is not there (any more).
    Unknown,
    /// Of a muted track.
    Muted,
    /// Late, from the source that the track has replaced.
    Replaced,
    /// Its subscriber cannot receive yet.
    Inactive,
    /// Its subscriber waits for a keyframe.
    AwaitingKeyframe,
    /// From before its subscriber's first packet.
    BeforeStart,
    /// Over TCP, and the connection, or the media thread, did not keep up.
    Tcp,
}

impl Reason {
    const COUNT: usize = Self::Tcp as usize + 1;
    const ALL: [Self; Self::COUNT] = [
        Self::Stranger,
        Self::Handshake,
        Self::Check,
        Self::Unprotected,
        Self::Malformed,
        Self::NoData,
        Self::Unsendable,
        Self::Socket,
        Self::Crossing,
        Self::Unknown,
        Self::Muted,
        Self::Replaced,
        Self::Inactive,
        Self::AwaitingKeyframe,
        Self::BeforeStart,
        Self::Tcp,
    ];
    /// Their names, as the metrics say them.
    pub(crate) const NAMES: &'static [&'static str] = &[
        "stranger",
        "handshake",
        "check",
        "unprotected",
        "malformed",
        "no_data",
        "unsendable",
        "socket",
        "crossing",
        "unknown",
        "muted",
        "replaced",
        "inactive",
        "awaiting_keyframe",
        "before_start",
        "tcp",
    ];
}

/// How many, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    all: u64,
    by: [u64; Reason::COUNT],
}

impl Drops {
    pub fn note(&mut self, reason: Reason) {
        self.add(reason, 1);
    }

    pub fn add(&mut self, reason: Reason, count: u64) {
        self.all += count;
        self.by[reason as usize] += count;
    }

    /// What a forwarding core did not forward; what a subscription should not get is no drop.
    pub fn add_forwarding(&mut self, counters: &sfu::Counters) {
        self.add(Reason::Unknown, counters.unknown_publication + counters.unknown_encoding);
        self.add(Reason::Muted, counters.muted);
        self.add(Reason::Replaced, counters.replaced_source);
        self.add(Reason::Inactive, counters.inactive);
        self.add(Reason::AwaitingKeyframe, counters.awaiting_keyframe);
        self.add(Reason::BeforeStart, counters.before_start);
    }

    pub fn all(&self) -> u64 {
        self.all
    }

    pub fn of(&self, reason: Reason) -> u64 {
        self.by[reason as usize]
    }

    /// Each reason's name and count.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.into_iter().map(|reason| (Reason::NAMES[reason as usize], self.of(reason)))
    }
}

impl std::ops::AddAssign for Drops {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        for (count, more) in self.by.iter_mut().zip(other.by) {
            *count += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_name_and_is_counted_once() {
        let mut drops = Drops::default();
        for reason in Reason::ALL {
            drops.add(reason, reason as u64 + 1);
        }
        let counts: Vec<u64> = drops.named().map(|(_, count)| count).collect();
        assert_eq!(counts, (1..=Reason::COUNT as u64).collect::<Vec<_>>());
        assert_eq!(Reason::NAMES.len(), Reason::COUNT);
        assert_eq!(drops.all(), counts.iter().sum::<u64>());
    }

    #[test]
    fn every_drop_of_the_core_has_a_reason() {
        // All at once: a new counter of the core that counts as a drop is missed by neither sum.
        let counters = sfu::Counters {
            unknown_publication: 1,
            unknown_encoding: 2,
            muted: 4,
            replaced_source: 8,
            inactive: 16,
            awaiting_keyframe: 32,
            before_start: 64,
            held: 1000,
            paused: 1000,
            other_encoding: 1000,
            withheld: 1000,
            ..sfu::Counters::default()
        };
        let mut drops = Drops::default();
        drops.add_forwarding(&counters);
        assert_eq!(drops.all(), counters.drops());
    }
}
