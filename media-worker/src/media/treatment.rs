//! What a session's settings come to for one endpoint: which codecs come first, and between which bit rates it is sent
//! something.

use common::model::{Bitrates, CodecName, SessionSettings};
use common::time::UnixMillis;
use sfu::Codec;
use sfu::bandwidth::Config;

/// How an endpoint is to be treated, as its join says.
#[derive(Debug, Clone, Default)]
pub struct Treatment {
    /// The session's, which may change while the endpoint lives.
    pub settings: SessionSettings,
    /// What counts for this participant in place of the session's.
    pub bitrates: Bitrates,
    /// To what its client lowers that.
    pub lowered: Bitrates,
    /// Cameras that its client wants at most.
    pub last_n: Option<u16>,
    /// Since when the participant is there.
    pub joined_at: UnixMillis,
}

/// The bounds of an endpoint's bit rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of what it is sent.
    pub config: Config,
    /// The most that somebody set for it, in bit/s: also for a client that tells nothing of its path, and of what it sends on
    /// each video m-line.
    pub limit: Option<u64>,
}

impl Treatment {
    /// Between the worker's own bounds, which nobody passes.
    pub fn bounds(&self, worker: Config) -> Bounds {
        let wanted = self.bitrates.over(&self.settings.bitrates).lowered_to(&self.lowered);
        let most = worker.max.max(worker.min);
        let limit = wanted.max_bps.map(|max| max.clamp(worker.min, most));
        let max = limit.unwrap_or(most);
        let min = wanted.min_bps.unwrap_or(worker.min).clamp(worker.min, max);
        let start = wanted.start_bps.unwrap_or(worker.start).clamp(min, max);
        Bounds { config: Config { start, min, max }, limit }
    }

    /// The place of a codec among those that come first; all others have the last.
    pub fn rank(&self, codec: Codec) -> usize {
        let codecs = &self.settings.codecs;
        codecs.iter().position(|name| self::codec(*name) == codec).unwrap_or(codecs.len())
    }
}

const fn codec(name: CodecName) -> Codec {
    match name {
        CodecName::Opus => Codec::Opus,
        CodecName::Vp8 => Codec::Vp8,
        CodecName::Vp9 => Codec::Vp9,
        CodecName::H264 => Codec::H264,
        CodecName::Av1 => Codec::Av1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: Config = Config { start: 300_000, min: 30_000, max: 5_000_000 };

    fn treatment(session: [u64; 3], own: [u64; 3], lowered: [u64; 3]) -> Treatment {
        // 0: not set.
        let bitrates = |[start, min, max]: [u64; 3]| {
            let set = |bitrate: u64| (bitrate > 0).then_some(bitrate);
            Bitrates { start_bps: set(start), min_bps: set(min), max_bps: set(max) }
        };
        Treatment {
            settings: SessionSettings { bitrates: bitrates(session), ..SessionSettings::default() },
            bitrates: bitrates(own),
            lowered: bitrates(lowered),
            ..Treatment::default()
        }
    }

    #[test]
    fn whoever_is_nearest_counts_within_the_workers_bounds() {
        let none = [0; 3];
        let bounds = |session, own, lowered| {
            let Bounds { config, limit } = treatment(session, own, lowered).bounds(WORKER);
            (config.start, config.min, config.max, limit)
        };
        assert_eq!(bounds(none, none, none), (300_000, 30_000, 5_000_000, None));
        assert_eq!(bounds([500_000, 50_000, 900_000], none, none), (500_000, 50_000, 900_000, Some(900_000)));
        assert_eq!(
            bounds([0, 0, 900_000], [0, 0, 2_000_000], none).3,
            Some(2_000_000),
            "the participant's own"
        );
        assert_eq!(
            bounds([0, 0, 900_000], none, [0, 0, 2_000_000]).3,
            Some(900_000),
            "a client does not raise"
        );
        assert_eq!(bounds([0, 0, 900_000], none, [0, 0, 200_000]), (200_000, 30_000, 200_000, Some(200_000)));
        assert_eq!(
            bounds([0, 0, 90_000_000], none, none).3,
            Some(5_000_000),
            "nor the application the worker's"
        );
        assert_eq!(bounds([0, 1, 2], none, none), (30_000, 30_000, 30_000, Some(30_000)));
    }

    #[test]
    fn named_codecs_come_first_in_their_order() {
        let mut treatment = Treatment::default();
        treatment.settings.codecs = vec![CodecName::H264, CodecName::Vp9];
        let mut known = vec![Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];
        known.sort_by_key(|codec| treatment.rank(*codec));
        assert_eq!(known, [Codec::H264, Codec::Vp9, Codec::Vp8, Codec::Av1], "others in the client's order");
    }
}
