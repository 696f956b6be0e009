//! Which packets of an encoding a subscription gets: temporal and spatial layers, changed only where it decodes.
//!
//! | | down | up |
//! |---|---|---|
//! | temporal, VP8 | at the next frame | by one, at a frame that needs the lowest layer only (Y) |
//! | temporal, VP9 | at the next picture | at a switching point (U) |
//! | spatial, VP9 | at the next picture | at a keyframe, which is asked for |
//! | with dependency descriptor | as soon as the lower target is a part of the higher | at a switch indication, when everything that the frame needs was forwarded |

use crate::Timestamp;
use crate::descriptor::dependency::{self, Indication, Needs, Structure};
use crate::descriptor::{Frame, Switch};
use crate::layers::Level;
use crate::packet::Packet;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// `marker`: it is the last one of its picture for this subscription.
    Forward {
        marker: bool,
    },
    Withhold,
}

/// What one subscription gets of the encoding that it is on.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    level: Level,
    /// The decode target, in streams with dependency descriptors.
    target: u8,
    /// The picture that is being received.
    picture: Option<Timestamp>,
    forwarded: Forwarded,
}

impl Selector {
    /// Another encoding begins, with a keyframe.
    pub fn start(&mut self, wanted: Level) {
        *self = Self { level: wanted, ..Self::default() };
    }

    /// Decides by the payload descriptor. `is_late`: a newer packet came before.
    pub fn select(&mut self, packet: &Packet<'_>, frame: &Frame, wanted: Level, is_late: bool) -> Verdict {
        if !is_late && self.picture != Some(packet.timestamp) {
            self.picture = Some(packet.timestamp);
            self.turn(frame, wanted);
        }
        let Level { spatial, temporal } = self.level;
        if frame.spatial > spatial || frame.temporal > temporal {
            return Verdict::Withhold;
        }
        Verdict::Forward { marker: packet.marker || frame.ends && frame.spatial == spatial }
    }

    /// A picture begins.
    fn turn(&mut self, frame: &Frame, wanted: Level) {
        let level = &mut self.level;
        if frame.starts_keyframe {
            *level = wanted;
            return;
        }
        level.spatial = level.spatial.min(wanted.spatial);
        level.temporal = level.temporal.min(wanted.temporal);
        match frame.switch {
            Switch::ToThis if frame.temporal.checked_sub(1) == Some(level.temporal) => {
                level.temporal = frame.temporal.min(wanted.temporal);
            }
            Switch::Above if frame.temporal <= level.temporal => level.temporal = wanted.temporal,
            _ => {}
        }
    }

    /// The highest layers that are forwarded now, of those that there are.
    pub fn level(&self, structure: Option<&Structure>) -> Level {
        match structure {
            Some(structure) => {
                let (spatial, temporal) = structure.layers(self.target);
                Level { spatial, temporal }
            }
            None => self.level,
        }
    }

    /// Whether more spatial layers are wanted than a keyframe has brought so far. `highest`: the highest one that there is.
    pub fn lacks(&self, wanted: Level, highest: u8, structure: Option<&Structure>) -> bool {
        match structure {
            Some(structure) => {
                let wanted = structure.target(wanted.spatial, wanted.temporal);
                structure.layers(wanted).0 > structure.layers(self.target).0
            }
            None => wanted.spatial.min(highest) > self.level.spatial,
        }
    }

    /// Decides by the dependency descriptor.
    pub fn select_by_dependencies(
        &mut self,
        packet: &Packet<'_>,
        descriptor: &dependency::Descriptor,
        structure: &Structure,
        wanted: Level,
        is_late: bool,
    ) -> Verdict {
        let wanted = structure.target(wanted.spatial, wanted.temporal);
        if descriptor.has_structure {
            self.target = wanted;
        } else if descriptor.starts_frame && !is_late && self.target != wanted {
            let switches = descriptor.indications.of(wanted) == Indication::Switch
                && self.forwarded.has(descriptor.number, descriptor.needs);
            if switches || structure.contains(self.target, wanted) {
                self.target = wanted;
            }
        }
        if descriptor.indications.of(self.target) == Indication::NotPresent {
            return Verdict::Withhold;
        }
        self.forwarded.note(descriptor.number);
        let is_last = descriptor.ends_frame && descriptor.spatial == structure.layers(self.target).0;
        Verdict::Forward { marker: packet.marker || is_last }
    }
}

/// Which of the last frames were forwarded.
#[derive(Debug, Clone, Default)]
struct Forwarded {
    newest: u16,
    /// Bit *n*: the one *n* before the newest.
    frames: u128,
}

impl Forwarded {
    fn note(&mut self, number: u16) {
        let ahead = number.wrapping_sub(self.newest) as i16;
        match ahead {
            1.. => {
                self.frames = self.frames.checked_shl(ahead.unsigned_abs().into()).unwrap_or_default() | 1;
                self.newest = number;
            }
            ..=0 => self.frames |= 1u128.checked_shl(ahead.unsigned_abs().into()).unwrap_or_default(),
        }
    }

    /// Whether everything that frame `number` needs was forwarded.
    fn has(&self, number: u16, needs: Needs) -> bool {
        // Bit n of `needs` is the frame `number - 1 - n`; that is the one `newest - (number - 1 - n)` before the newest.
        let ahead = number.wrapping_sub(self.newest).wrapping_sub(1) as i16;
        let shift = u32::from(ahead.unsigned_abs());
        let needed = if ahead >= 0 {
            // Those between the newest forwarded and this one were not.
            if shift > 0 && needs.frames & (u128::MAX.checked_shr(128 - shift.min(128)).unwrap_or(0)) != 0 {
                return false;
            }
            needs.frames.checked_shr(shift).unwrap_or_default()
        } else {
            match needs.frames.checked_shl(shift) {
                Some(moved) if moved >> shift == needs.frames => moved,
                _ => return false,
            }
        };
        !needs.older && self.frames & needed == needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::dependency::Reader;
    use crate::descriptor::dependency::tests::descriptor;

    const ALL: Level = Level { spatial: 9, temporal: 9 };

    fn level(spatial: u8, temporal: u8) -> Level {
        Level { spatial, temporal }
    }

    fn is_forwarded(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Forward { .. })
    }

    /// The temporal layers that get through, of a pattern of (layer, switch) pairs.
    fn temporal(selector: &mut Selector, at: u32, pattern: &[(u8, Switch)], wanted: u8) -> Vec<u8> {
        let mut through = Vec::new();
        for (index, (temporal, switch)) in pattern.iter().enumerate() {
            let frame = Frame { temporal: *temporal, switch: *switch, ..Frame::default() };
            let packet = Packet::new(1, 1, at + index as u32, &[]);
            if is_forwarded(selector.select(&packet, &frame, level(0, wanted), false)) {
                through.push(*temporal);
            }
        }
        through
    }

    #[test]
    fn temporal_layers_go_down_at_once_and_up_where_the_encoder_says() {
        use Switch::{Above, No, ToThis};
        let mut selector = Selector::default();
        selector.start(ALL);
        assert_eq!(temporal(&mut selector, 0, &[(0, No), (2, No), (1, No)], 2), [0, 2, 1]);
        assert_eq!(temporal(&mut selector, 10, &[(2, No), (1, No), (0, No)], 0), [0]);
        let synced = [(2, ToThis), (1, No), (1, ToThis), (2, No), (2, ToThis), (1, No)];
        assert_eq!(temporal(&mut selector, 20, &synced, 2), [1, 2, 1], "one after the other");
        assert_eq!(temporal(&mut selector, 30, &[(0, No), (2, No)], 0), [0]);
        assert_eq!(temporal(&mut selector, 40, &[(1, Above), (2, No), (0, Above), (2, No)], 2), [0, 2]);
    }

    #[test]
    fn a_spatial_layer_comes_with_a_keyframe_and_the_marker_moves_to_the_highest_that_is_forwarded() {
        let mut selector = Selector::default();
        selector.start(level(1, 9));
        let mut picture = |at: u32, is_key: bool, wanted: Level| -> Vec<(u8, bool)> {
            let mut through = Vec::new();
            for spatial in 0..3 {
                let starts_keyframe = is_key && spatial == 0;
                let frame = Frame { spatial, starts_keyframe, ends: true, ..Frame::default() };
                let packet = Packet { marker: spatial == 2, ..Packet::new(1, 1, at, &[]) };
                if let Verdict::Forward { marker } = selector.select(&packet, &frame, wanted, false) {
                    through.push((spatial, marker));
                }
            }
            through
        };
        assert_eq!(picture(1, true, level(1, 9)), [(0, false), (1, true)]);
        assert_eq!(picture(2, false, ALL), [(0, false), (1, true)], "not without a keyframe");
        assert_eq!(picture(3, true, ALL), [(0, false), (1, false), (2, true)]);
        assert_eq!(picture(4, false, level(0, 9)), [(0, true)]);
    }

    /// Frames of the L2T2_KEY stream: (template, number), and which of them get through.
    fn by_dependencies(
        selector: &mut Selector,
        reader: &mut Reader,
        frames: &[(u8, u16)],
        wanted: Level,
    ) -> Vec<u16> {
        let mut through = Vec::new();
        for (template, number) in frames {
            let read = reader.read(&descriptor(*template, *number, *number == 100)).unwrap();
            let packet = Packet::new(1, 1, 1, &[]);
            let structure = reader.structure().unwrap();
            if is_forwarded(selector.select_by_dependencies(&packet, &read, structure, wanted, false)) {
                through.push(*number);
            }
        }
        through
    }

    #[test]
    fn a_decode_target_changes_only_to_one_whose_frames_the_subscriber_can_decode() {
        let (mut selector, mut reader) = (Selector::default(), Reader::default());
        // A keyframe in both spatial layers, then pictures of T1 and T0.
        let first = [(0, 100), (3, 101), (2, 102), (5, 103)];
        assert_eq!(by_dependencies(&mut selector, &mut reader, &first, level(1, 0)), [100, 101]);
        // Up in time: T0 frames are switching points, T1 frames are not.
        assert_eq!(
            by_dependencies(&mut selector, &mut reader, &[(5, 103), (1, 104), (4, 105)], level(1, 1)),
            [105]
        );
        assert_eq!(by_dependencies(&mut selector, &mut reader, &[(2, 106), (5, 107)], level(1, 1)), [107]);
        // Down in space: 108 says "switch" for S0, but needs 104, which was not forwarded.
        assert_eq!(by_dependencies(&mut selector, &mut reader, &[(1, 108), (4, 109)], level(0, 1)), [109]);
        // Down in time at once: the lower target is a part of the higher.
        assert_eq!(by_dependencies(&mut selector, &mut reader, &[(2, 110), (5, 111)], level(1, 0)), []);
        // A keyframe changes to anything.
        let mut selector_of_lower = selector.clone();
        assert_eq!(
            by_dependencies(&mut selector_of_lower, &mut reader, &[(0, 100), (3, 101)], level(0, 1)),
            [100]
        );
    }

    #[test]
    fn forwarded_frames_are_remembered_across_gaps_and_the_wrap() {
        let mut forwarded = Forwarded { newest: 65_530, frames: 0 };
        for number in [65_531, 65_535, 2] {
            forwarded.note(number);
        }
        let needs = |differences: &[u32]| Needs {
            frames: differences.iter().fold(0, |all, it| all | 1u128 << (it - 1)),
            older: false,
        };
        assert!(forwarded.has(3, needs(&[1, 4, 8])));
        assert!(!forwarded.has(3, needs(&[2])), "that was withheld");
        assert!(forwarded.has(6, needs(&[4])) && !forwarded.has(6, needs(&[1])), "4 was never there");
        assert!(forwarded.has(0, needs(&[1, 5])), "late");
        assert!(forwarded.has(9, needs(&[])) && !forwarded.has(200, needs(&[128])));
        assert!(!forwarded.has(3, Needs { frames: 0, older: true }));
        forwarded.note(2000);
        assert!(!forwarded.has(2001, needs(&[2])) && forwarded.has(2001, needs(&[1])));
    }
}
