//! Who is speaking, from the audio levels that publishers put into their packets (RFC 6464).
//!
//! ```text
//!   each packet: Voice::note ──▶ each INTERVAL: Voice::measure ──▶ Speakers::update ──▶ the list, when it has changed
//! ```
//!
//! A [`Voice`] belongs to one received stream and costs an addition for each packet. An interval counts as speech
//! when at least two fifths of it were louder than a room with somebody breathing in it; a cough is not enough. [`Speakers`] smooths
//! over intervals, so a pause between two sentences does not end anybody's turn.

use std::time::{Duration, Instant};

/// How often it is decided who speaks.
pub const INTERVAL: Duration = Duration::from_millis(400);
/// Most speakers in a list: the loudest.
pub const MAX_SPEAKERS: usize = 8;
/// Levels at most this far below full scale are speech. dBov.
const SPEECH: u8 = 40;
/// The share of an interval that must be speech, in per cent.
const SHARE: u32 = 40;
/// What one packet stands for at most: with discontinuous transmission, silence is not sent.
const LONGEST_PACKET: Duration = Duration::from_millis(60);
/// Levels are given in this many steps.
const LEVELS: f32 = 8.0;
/// Whoever leads the list stays there until somebody is louder by this much: two who talk at once do not take turns.
const LEAD: f32 = 0.15;
/// How much of the difference to the last interval's level is taken over.
const ATTACK: f32 = 0.6;
const RELEASE: f32 = 0.35;
/// A smoothed level from which on somebody speaks, and below which no longer.
const BEGINS: f32 = 0.1;
const ENDS: f32 = 0.05;

/// The levels of one received audio stream since they were measured last.
#[derive(Debug, Clone, Default)]
pub struct Voice {
    last: Option<Instant>,
    speech: Duration,
    /// The sum of speech levels (dB below full scale), weighted with their duration in milliseconds.
    weighted: u32,
}

impl Voice {
    /// Notes one packet's level: 0 (full scale) to 127 (silence), in dB below full scale (RFC 6464, section 3).
    pub fn note(&mut self, now: Instant, level: u8) {
        let since = self.last.map_or(LONGEST_PACKET / 3, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        if level > SPEECH {
            return;
        }
        let lasts = since.min(LONGEST_PACKET);
        self.speech += lasts;
        self.weighted = self.weighted.saturating_add(u32::from(level) * lasts.as_millis() as u32);
    }

    /// The level of the interval that ends now, 0.0 (no speech) to 1.0 (full scale), and begins the next one.
    pub fn measure(&mut self) -> f32 {
        let (speech, weighted) = (std::mem::take(&mut self.speech), std::mem::take(&mut self.weighted));
        let millis = speech.as_millis() as u32;
        if millis * 100 < INTERVAL.as_millis() as u32 * SHARE {
            return 0.0;
        }
        let level = weighted as f32 / millis as f32;
        // Decibels are what ears hear; the quietest speech still shows.
        (1.0 - level / f32::from(SPEECH)).clamp(0.0, 1.0).mul_add(0.75, 0.25)
    }
}

/// One who speaks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speaker<K> {
    pub key: K,
    /// 0.0 to 1.0, in steps of 1/8.
    pub level: f32,
}

/// Who speaks in one room. `K` names a stream.
#[derive(Debug)]
pub struct Speakers<K> {
    voices: Vec<Smoothed<K>>,
    /// Whom the last list named, the first one leading.
    told: Vec<K>,
}

#[derive(Debug)]
struct Smoothed<K> {
    key: K,
    level: f32,
    speaks: bool,
    /// Measured in the interval that is looked at.
    is_fresh: bool,
}

impl<K> Default for Speakers<K> {
    fn default() -> Self {
        Self { voices: Vec::new(), told: Vec::new() }
    }
}

impl<K: Copy + PartialEq> Speakers<K> {
    /// Takes what every voice measured for one interval. Whoever is not among them is silent. Gives the new list when
    /// other people are on it than on the last one given, or another one leads: the loudest first, at most
    /// [`MAX_SPEAKERS`].
    pub fn update(&mut self, measured: impl Iterator<Item = (K, f32)>) -> Option<Vec<Speaker<K>>> {
        for (key, level) in measured {
            match self.voices.iter_mut().find(|voice| voice.key == key) {
                Some(voice) => voice.take(level),
                None if level > 0.0 => {
                    let mut voice = Smoothed { key, level: 0.0, speaks: false, is_fresh: false };
                    voice.take(level);
                    self.voices.push(voice);
                }
                None => {}
            }
        }
        for voice in &mut self.voices {
            if !std::mem::take(&mut voice.is_fresh) {
                voice.take(0.0);
                voice.is_fresh = false;
            }
        }
        self.voices.retain(|voice| voice.level > ENDS / 4.0);
        let leader = self.told.first().copied();
        let rank = |voice: &Smoothed<K>| voice.level + if Some(voice.key) == leader { LEAD } else { 0.0 };
        let mut speaking: Vec<_> = self.voices.iter().filter(|voice| voice.speaks).collect();
        speaking.sort_by(|one, other| rank(other).total_cmp(&rank(one)));
        speaking.truncate(MAX_SPEAKERS);
        let is_told = speaking.len() == self.told.len()
            && speaking.first().map(|voice| voice.key) == leader
            && speaking.iter().all(|voice| self.told.contains(&voice.key));
        if is_told {
            return None;
        }
        self.told = speaking.iter().map(|voice| voice.key).collect();
        Some(speaking.into_iter().map(Smoothed::shown).collect())
    }

    /// Whether silence would still change something: then it has to be asked again after [`INTERVAL`].
    pub fn is_idle(&self) -> bool {
        self.voices.is_empty() && self.told.is_empty()
    }
}

impl<K: Copy> Smoothed<K> {
    fn take(&mut self, level: f32) {
        let share = if level > self.level { ATTACK } else { RELEASE };
        self.level += (level - self.level) * share;
        self.speaks = self.level >= if self.speaks { ENDS } else { BEGINS };
        self.is_fresh = true;
    }

    fn shown(&self) -> Speaker<K> {
        Speaker { key: self.key, level: (self.level * LEVELS).ceil().min(LEVELS) / LEVELS }
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

    /// One interval of packets, of which so many per cent are of this level and the rest silence.
    fn interval(voice: &mut Voice, now: &mut Instant, level: u8, percent: u32) -> f32 {
        let packets = (INTERVAL.as_millis() / PACKET.as_millis()) as u32;
        for packet in 0..packets {
            *now += PACKET;
            voice.note(*now, if packet * 100 < packets * percent { level } else { 127 });
        }
        voice.measure()
    }

    #[test]
    fn speech_counts_when_it_fills_enough_of_an_interval_and_is_loud_enough() {
        let (mut voice, mut now) = (Voice::default(), epoch());
        assert_eq!(interval(&mut voice, &mut now, 20, 35), 0.0, "a cough");
        let quiet = interval(&mut voice, &mut now, 38, 100);
        let loud = interval(&mut voice, &mut now, 12, 60);
        assert!(0.0 < quiet && quiet < loud && loud <= 1.0, "{quiet} {loud}");
        assert_eq!(interval(&mut voice, &mut now, 60, 100), 0.0, "noise");
        assert_eq!(voice.measure(), 0.0, "nothing came");
    }

    #[test]
    fn what_was_not_sent_was_silence() {
        let (mut voice, start) = (Voice::default(), epoch());
        // One comfort noise packet after a second of discontinuous transmission.
        voice.note(start, 127);
        voice.note(start + Duration::from_secs(1), 10);
        assert_eq!(voice.measure(), 0.0);
    }

    #[test]
    fn a_turn_survives_a_breath_and_ends_with_silence() {
        let mut speakers = Speakers::default();
        let list =
            |told: Option<Vec<Speaker<u8>>>| told.map(|it| it.iter().map(|one| one.key).collect::<Vec<_>>());
        assert_eq!(list(speakers.update([(1, 0.6), (2, 0.0)].into_iter())), Some(vec![1]));
        for level in [0.6, 0.0, 0.6, 0.6] {
            assert_eq!(
                speakers.update([(1, level), (2, 0.0)].into_iter()),
                None,
                "still the same one speaks"
            );
        }
        assert_eq!(list(speakers.update([(1, 0.6), (2, 0.6)].into_iter())), Some(vec![1, 2]));
        for level in [0.55, 0.65, 0.55] {
            assert_eq!(
                speakers.update([(1, 0.6), (2, level)].into_iter()),
                None,
                "a little louder is not louder"
            );
        }
        assert_eq!(
            list(speakers.update([(1, 0.2), (2, 0.9)].into_iter())),
            Some(vec![2, 1]),
            "the louder leads"
        );
        let mut last = None;
        let mut intervals = 0;
        while !speakers.is_idle() {
            last = list(speakers.update([(2, 0.0)].into_iter())).or(last);
            intervals += 1;
            assert!(intervals < 20);
        }
        assert_eq!(last, Some(vec![]));
        assert_eq!(speakers.update([(1, 0.0)].into_iter()), None);
    }

    #[test]
    fn the_list_is_bounded_and_holds_the_loudest() {
        let mut speakers = Speakers::default();
        let told = speakers.update((0..40u8).map(|key| (key, 0.3 + f32::from(key) / 60.0))).unwrap();
        assert_eq!(told.len(), MAX_SPEAKERS);
        assert!(told.iter().all(|speaker| speaker.key >= 30), "{told:?}");
    }

    proptest! {
        #[test]
        fn any_levels_at_any_times_give_levels_in_range_in_order(
            rounds in proptest::collection::vec(
                proptest::collection::vec((0u8..6, any::<u8>(), 0u64..200), 0..60), 1..20)
        ) {
            let (mut speakers, mut now) = (Speakers::default(), epoch());
            let mut voices: Vec<Voice> = vec![Voice::default(); 6];
            for round in rounds {
                for (who, level, wait) in round {
                    now += Duration::from_millis(wait);
                    voices[usize::from(who)].note(now, level);
                }
                let measured: Vec<_> =
                    voices.iter_mut().enumerate().map(|(who, voice)| (who, voice.measure())).collect();
                prop_assert!(measured.iter().all(|(_, level)| (0.0..=1.0).contains(level)));
                if let Some(told) = speakers.update(measured.into_iter()) {
                    prop_assert!(told.iter().all(|one| one.level > 0.0 && one.level <= 1.0));
                    prop_assert!(told.len() <= MAX_SPEAKERS);
                }
            }
        }
    }
}
