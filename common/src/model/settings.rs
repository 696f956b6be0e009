//! How a session treats its media: what is forwarded of large rooms, in which codecs, and at which bit rates.
//!
//! They are stored with the session, so that they outlive its worker, and changed as a whole. Whatever is not set is as the
//! worker does it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A codec by the name that clients give it (RTCRtpCodec.mimeType, without the kind).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CodecName {
    Opus,
    Vp8,
    Vp9,
    H264,
    Av1,
}

impl CodecName {
    pub const ALL: [Self; 5] = [Self::Opus, Self::Vp8, Self::Vp9, Self::H264, Self::Av1];
}

/// Where the estimate of a client's path begins, and its bounds, in bit/s. What is absent is left to whoever is asked next:
/// the participant's, then the session's, then the worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Bitrates {
    /// Before anything is known of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_bps: Option<u64>,
    /// Never less is sent because of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_bps: Option<u64>,
    /// Never more is sent to a client, and a client is told to send no more on a video m-line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bps: Option<u64>,
}

impl Bitrates {
    pub const UNSET: Self = Self { start_bps: None, min_bps: None, max_bps: None };
    /// The least and the most that any of them may be: a voice, and more than any client takes.
    pub const RANGE: std::ops::RangeInclusive<u64> = 30_000..=1_000_000_000;

    pub fn is_unset(&self) -> bool {
        *self == Self::UNSET
    }

    /// Whether all are in [`Bitrates::RANGE`] and in order, as far as they are set.
    pub fn are_in_order(&self) -> bool {
        let set = [self.min_bps, self.start_bps, self.max_bps];
        let known = set.into_iter().flatten();
        known.clone().all(|it| Self::RANGE.contains(&it)) && known.is_sorted()
    }

    /// These, and for what is not set the others. `others` gives way where both together would be out of order.
    #[must_use]
    pub fn over(&self, others: &Self) -> Self {
        let max_bps = self.max_bps.or(others.max_bps);
        let min_bps = self.min_bps.or(others.min_bps);
        // Of two bounds the one that is meant for these alone counts.
        let (min_bps, max_bps) = match (min_bps, max_bps) {
            (Some(min), Some(max)) if min > max && self.min_bps.is_some() => (Some(min), Some(min)),
            (Some(min), Some(max)) if min > max => (Some(max), Some(max)),
            bounds => bounds,
        };
        let start_bps = self.start_bps.or(others.start_bps);
        let start_bps = start_bps.map(|start| start.clamp(min_bps.unwrap_or(0), max_bps.unwrap_or(u64::MAX)));
        Self { start_bps, min_bps, max_bps }
    }

    /// These, lowered to what the client itself asks for. It raises nothing: what is higher than these does not count.
    #[must_use]
    pub fn lowered_to(&self, own: &Self) -> Self {
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let max_bps = least(self.max_bps, own.max_bps);
        // A floor that is not set is the worker's, which is the least there is.
        let min_bps = self.min_bps.map(|min| min.min(own.min_bps.unwrap_or(min)));
        let up_to_max = |bitrate: u64| bitrate.min(max_bps.unwrap_or(u64::MAX));
        Self {
            start_bps: least(self.start_bps, own.start_bps).map(up_to_max),
            min_bps: min_bps.map(up_to_max),
            max_bps,
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SessionSettings {
    /// Counts changes; of two, the one with the higher number is newer.
    #[serde(default)]
    pub revision: i64,
    /// Cameras that each client gets at most: those of whoever spoke last. All when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_n: Option<u16>,
    /// Microphones that are forwarded at most: the loudest. All when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loudest_n: Option<u16>,
    /// What publishers are answered with first, in this order. Others come after these, in the client's own order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codecs: Vec<CodecName>,
    #[serde(default, skip_serializing_if = "Bitrates::is_unset")]
    pub bitrates: Bitrates,
}

impl SessionSettings {
    /// Whether nothing was ever set: then it need not be written.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn bitrates(start: Option<u64>, min: Option<u64>, max: Option<u64>) -> Bitrates {
        Bitrates { start_bps: start, min_bps: min, max_bps: max }
    }

    #[test]
    fn bitrates_are_in_range_and_in_order() {
        assert!(Bitrates::UNSET.are_in_order());
        assert!(bitrates(Some(300_000), Some(30_000), Some(300_000)).are_in_order());
        assert!(!bitrates(None, Some(29_999), None).are_in_order());
        assert!(!bitrates(None, None, Some(1_000_000_001)).are_in_order());
        assert!(!bitrates(Some(50_000), Some(60_000), None).are_in_order());
        assert!(!bitrates(Some(70_000), None, Some(60_000)).are_in_order());
        assert!(!bitrates(None, Some(70_000), Some(60_000)).are_in_order());
    }

    #[test]
    fn what_is_said_for_one_counts_before_what_is_said_for_all() {
        let all = bitrates(Some(300_000), Some(50_000), Some(2_000_000));
        assert_eq!(Bitrates::UNSET.over(&all), all);
        let one = bitrates(None, None, Some(4_000_000));
        assert_eq!(one.over(&all), bitrates(Some(300_000), Some(50_000), Some(4_000_000)));
        let narrow = bitrates(None, None, Some(40_000));
        assert_eq!(narrow.over(&all), bitrates(Some(40_000), Some(40_000), Some(40_000)));
        let floor = bitrates(None, Some(3_000_000), None);
        assert_eq!(floor.over(&all), bitrates(Some(3_000_000), Some(3_000_000), Some(3_000_000)));
    }

    #[test]
    fn a_client_lowers_and_never_raises() {
        let given = bitrates(Some(300_000), Some(50_000), Some(2_000_000));
        assert_eq!(given.lowered_to(&Bitrates::UNSET), given);
        let more = bitrates(Some(900_000), Some(100_000), Some(9_000_000));
        assert_eq!(given.lowered_to(&more), given);
        let less = bitrates(None, None, Some(200_000));
        assert_eq!(given.lowered_to(&less), bitrates(Some(200_000), Some(50_000), Some(200_000)));
        let floor = bitrates(None, Some(900_000), Some(900_000));
        let lowered = Bitrates::UNSET.lowered_to(&floor);
        assert_eq!(lowered, bitrates(None, None, Some(900_000)), "nobody makes a floor of its own");
    }

    #[test]
    fn documents_without_settings_are_read() {
        let read: SessionSettings = serde_json::from_str("{}").unwrap();
        assert!(read.is_default());
        let written = SessionSettings { revision: 3, codecs: vec![CodecName::H264], ..read };
        assert_eq!(serde_json::to_string(&written).unwrap(), r#"{"revision":3,"codecs":["h264"]}"#);
    }
}
