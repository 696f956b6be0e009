//! Which voices of a large room are forwarded: the loudest few, by the levels that publishers put into their packets
//! (RFC 6464).
//!
//! ```text
//!   each packet: Loudest::note ──▶ Change: whom to forward from now on, whom not any more
//! ```
//!
//! A voice is as loud as it lately was: its level is taken over within a few packets and given back slowly, so that neither
//! the pause between two words nor the closed lips of a "p" costs anybody their place. Somebody new takes a free place, or
//! that of the quietest when clearly louder: at once from who is silent, and from who speaks by [`MARGIN`]. With all places
//! taken by people who speak as loudly, a further one waits until one of them pauses.
//!
//! A packet costs a few operations; one that asks for a place looks at the voices that have one, which are few.

use std::time::{Duration, Instant};

/// Levels at most this far below full scale count, in dB: the rest is a room in which nobody speaks.
const FLOOR: f32 = 55.0;
/// A level is taken over with this time constant.
const ATTACK: f32 = 0.04;
/// A voice that is silent loses so many dB a second.
const RELEASE: f32 = 40.0;
/// By how much somebody must be louder than the quietest who speaks, in dB.
const MARGIN: f32 = 6.0;
/// The same for the place of somebody who is silent.
const FROM_SILENCE: f32 = 1.0;
/// What one packet stands for at most: with discontinuous transmission, silence is not sent.
const LONGEST_PACKET: Duration = Duration::from_millis(60);

/// What changes with a packet. Voices are named by their index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Forwarded from this packet on.
    pub admitted: Option<usize>,
    /// Not forwarded any more.
    pub held: Option<usize>,
}

/// One voice.
#[derive(Debug, Clone, Copy)]
struct Voice {
    /// How loud it lately was, in dB above the floor, at `last`.
    loudness: f32,
    last: Instant,
    is_forwarded: bool,
}

impl Voice {
    fn loudness(&self, now: Instant) -> f32 {
        let since = now.saturating_duration_since(self.last).as_secs_f32();
        (self.loudness - RELEASE * since).max(0.0)
    }
}

/// See the module. Without a limit everybody is forwarded, and nothing is remembered of who was how loud.
#[derive(Debug, Default)]
pub struct Loudest {
    limit: Option<usize>,
    /// By index; `None` for who has not said a level yet.
    voices: Vec<Option<Voice>>,
    /// Who is forwarded, in no order; at most as many as the limit.
    forwarded: Vec<usize>,
}

impl Loudest {
    /// Whether a voice is forwarded. One that never said a level is.
    pub fn is_forwarded(&self, index: usize) -> bool {
        self.limit.is_none() || self.voice(index).is_none_or(|voice| voice.is_forwarded)
    }

    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Sets how many are forwarded; `None`: all. Of those who are known the loudest stay. Ask [`Loudest::is_forwarded`]
    /// for each afterwards.
    pub fn set_limit(&mut self, now: Instant, limit: Option<usize>) {
        self.limit = limit;
        let Some(limit) = limit else {
            self.voices.clear();
            self.forwarded.clear();
            return;
        };
        let loudness = |voice: &Voice| voice.loudness(now);
        let known = (0..self.voices.len()).filter_map(|index| Some((index, loudness(self.voice(index)?))));
        let mut known: Vec<_> = known.collect();
        known.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        self.forwarded.clear();
        self.forwarded.extend(known.iter().map(|(index, _)| *index).take(limit));
        for (index, voice) in self.voices.iter_mut().enumerate() {
            let is_forwarded = self.forwarded.contains(&index);
            voice.iter_mut().for_each(|voice| voice.is_forwarded = is_forwarded);
        }
    }

    /// Notes a packet's level: 0 (full scale) to 127 (silence), in dB below full scale (RFC 6464, section 3).
    pub fn note(&mut self, now: Instant, index: usize, level: u8) -> Change {
        let Some(limit) = self.limit else { return Change::default() };
        if self.voices.len() <= index {
            self.voices.resize(index + 1, None);
        }
        let is_new = self.voices[index].is_none();
        let voice = self.voices[index].get_or_insert(Voice { loudness: 0.0, last: now, is_forwarded: false });
        let before = voice.loudness(now);
        let since = if is_new {
            LONGEST_PACKET / 3
        } else {
            now.saturating_duration_since(voice.last).min(LONGEST_PACKET)
        };
        let said = (FLOOR - f32::from(level)).max(0.0);
        let share = 1.0 - (-since.as_secs_f32() / ATTACK).exp();
        voice.loudness = if said > before { before + (said - before) * share } else { before };
        voice.last = now;
        if voice.is_forwarded {
            return Change::default();
        }
        let loudness = voice.loudness;
        let dropped =
            if self.forwarded.len() < limit { Some(None) } else { self.beaten(now, loudness).map(Some) };
        let Some(dropped) = dropped else {
            return Change { admitted: None, held: is_new.then_some(index) };
        };
        if let Some(dropped) = dropped {
            self.forwarded.retain(|other| *other != dropped);
            self.set_forwarded(dropped, false);
        }
        self.forwarded.push(index);
        self.set_forwarded(index, true);
        Change { admitted: (!is_new || dropped.is_some()).then_some(index), held: dropped }
    }

    /// Forgets a voice: it has ended, or was muted. Its place is free.
    pub fn forget(&mut self, index: usize) {
        if let Some(voice) = self.voices.get_mut(index) {
            *voice = None;
        }
        self.forwarded.retain(|other| *other != index);
    }

    fn voice(&self, index: usize) -> Option<&Voice> {
        self.voices.get(index)?.as_ref()
    }

    fn set_forwarded(&mut self, index: usize, is_forwarded: bool) {
        if let Some(Some(voice)) = self.voices.get_mut(index) {
            voice.is_forwarded = is_forwarded;
        }
    }

    /// Who gives way to somebody as loud as that.
    fn beaten(&self, now: Instant, loudness: f32) -> Option<usize> {
        // Most packets of who is not forwarded are silence.
        if loudness < FROM_SILENCE {
            return None;
        }
        let held_by = self
            .forwarded
            .iter()
            .map(|index| (*index, self.voice(*index).map_or(0.0, |voice| voice.loudness(now))));
        let (index, quietest) = held_by.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
        let margin = if quietest > 0.0 { MARGIN } else { FROM_SILENCE };
        (loudness >= quietest + margin).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKET: Duration = Duration::from_millis(20);

    // The core itself never reads a clock; a test needs some instant to count from.
    #[allow(clippy::disallowed_methods)]
    fn epoch() -> Instant {
        Instant::now()
    }

    /// A room whose members all send a packet every 20 ms.
    struct Room {
        loudest: Loudest,
        now: Instant,
        /// Who was forwarded, as the changes said.
        forwarded: Vec<bool>,
        changes: usize,
    }

    impl Room {
        fn new(members: usize, limit: usize) -> Self {
            let mut loudest = Loudest::default();
            loudest.set_limit(epoch(), Some(limit));
            Self { loudest, now: epoch(), forwarded: vec![true; members], changes: 0 }
        }

        /// Everybody is as loud as that for so many packets. `level`: by member and packet.
        fn speak(&mut self, packets: usize, level: impl Fn(usize, usize) -> u8) {
            for packet in 0..packets {
                self.now += PACKET;
                for member in 0..self.forwarded.len() {
                    let change = self.loudest.note(self.now, member, level(member, packet));
                    self.changes += usize::from(change.admitted.is_some());
                    change.held.into_iter().for_each(|it| self.forwarded[it] = false);
                    change.admitted.into_iter().for_each(|it| self.forwarded[it] = true);
                }
            }
        }

        fn is(&self, members: &[usize]) -> bool {
            let all = (0..self.forwarded.len()).filter(|member| self.forwarded[*member]);
            all.eq(members.iter().copied())
        }
    }

    const SILENT: u8 = 127;

    #[test]
    fn no_more_than_the_limit_are_forwarded_and_who_speaks_is_among_them() {
        let mut room = Room::new(20, 3);
        room.speak(50, |_, _| SILENT);
        assert!(room.is(&[0, 1, 2]), "whoever came first, while nobody speaks");
        room.speak(10, |member, _| if member >= 17 { 25 } else { SILENT });
        assert!(room.is(&[17, 18, 19]));
        room.speak(200, |_, _| SILENT);
        assert!(room.is(&[17, 18, 19]), "silence changes nothing");
    }

    #[test]
    fn somebody_new_is_heard_within_a_fifth_of_a_second() {
        for (level, limit) in [(20, 1), (35, 3), (45, 3)] {
            let mut room = Room::new(12, limit);
            // The places are taken by people who have just stopped: half a second ago.
            room.speak(100, |member, _| if member < limit { level } else { SILENT });
            room.speak(25, |_, _| SILENT);
            let mut packets = 0;
            while !room.forwarded[11] {
                room.speak(1, |member, _| if member == 11 { level } else { SILENT });
                packets += 1;
                assert!(packets <= 10, "{level} dB below full scale, {limit} places");
            }
        }
    }

    #[test]
    fn words_have_gaps_and_nobody_flaps_because_of_them() {
        // Two who speak as loudly, in syllables of 160 ms with 80 ms of closed lips between them, and two places less one.
        let mut room = Room::new(2, 1);
        room.speak(3000, |member, packet| if (packet + 5 * member) % 12 < 8 { 25 } else { 70 });
        assert_eq!(room.changes, 0, "a minute of both at once");
    }

    #[test]
    fn who_stops_gives_way_to_who_goes_on() {
        let mut room = Room::new(2, 1);
        room.speak(100, |_, _| 25);
        assert!(room.is(&[0]));
        room.speak(10, |member, _| if member == 0 { SILENT } else { 25 });
        assert!(room.is(&[1]), "within a fifth of a second");
    }

    #[test]
    fn a_click_takes_no_place_from_somebody_who_speaks() {
        let mut room = Room::new(2, 1);
        room.speak(100, |member, _| if member == 0 { 20 } else { SILENT });
        room.speak(1, |member, _| if member == 0 { 20 } else { 0 });
        assert!(room.is(&[0]));
    }

    #[test]
    fn who_ends_or_is_muted_leaves_its_place_to_the_next() {
        let mut room = Room::new(3, 1);
        room.speak(10, |_, _| 30);
        assert!(room.is(&[0]));
        room.loudest.forget(0);
        room.forwarded[0] = false;
        let change = room.loudest.note(room.now, 2, SILENT);
        assert_eq!(change, Change { admitted: Some(2), held: None });
    }

    #[test]
    fn another_limit_keeps_the_loudest_and_none_everybody() {
        let mut room = Room::new(5, 4);
        room.speak(50, |member, _| 20 + 5 * member as u8);
        room.loudest.set_limit(room.now, Some(2));
        let forwarded = |room: &Room| (0..5).filter(|it| room.loudest.is_forwarded(*it)).collect::<Vec<_>>();
        assert_eq!(forwarded(&room), [0, 1]);
        room.loudest.set_limit(room.now, None);
        assert_eq!(forwarded(&room), [0, 1, 2, 3, 4]);
        assert_eq!(room.loudest.note(room.now, 3, 0), Change::default());
    }

    proptest! {
        #[test]
        fn whatever_is_said_no_more_than_the_limit_are_forwarded(
            packets in proptest::collection::vec((0usize..9, any::<u8>(), 0u64..300, 0u8..40), 1..400),
            limit in 1usize..5,
        ) {
            let (mut loudest, mut now) = (Loudest::default(), epoch());
            loudest.set_limit(now, Some(limit));
            let mut forwarded = [true; 9];
            let mut known = [false; 9];
            for (who, level, wait, other) in packets {
                now += Duration::from_millis(wait);
                match other {
                    0 => {
                        loudest.forget(who);
                        (known[who], forwarded[who]) = (false, true);
                        continue;
                    }
                    1 => {
                        loudest.set_limit(now, Some(limit));
                        (0..9).for_each(|it| forwarded[it] = loudest.is_forwarded(it));
                    }
                    _ => {}
                }
                let change = loudest.note(now, who, level & 0x7f);
                known[who] = true;
                change.held.into_iter().for_each(|it| forwarded[it] = false);
                change.admitted.into_iter().for_each(|it| forwarded[it] = true);
                prop_assert!((0..9).all(|it| forwarded[it] == loudest.is_forwarded(it)), "the changes tell all");
                let count = (0..9).filter(|it| known[*it] && forwarded[*it]).count();
                prop_assert!(count <= limit);
            }
        }
    }
}
