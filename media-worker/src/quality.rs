//! How good a participant's connection is, from figures: a formula without any state, and a level that does not flicker.
//! `docs/QUALITY.md` is the same in prose.
//!
//! The score follows the E-model (ITU-T G.107): it starts at what a perfect connection gives and takes off what delay
//! and loss cost, with the constants of wideband speech coders that conceal loss. What share of the wanted video
//! layers is there then scales it.

use std::time::{Duration, Instant};

use common::model::Quality;

/// The E-model's rating without any impairment (R0 with default values).
const BEST: f64 = 93.2;
/// Beside half the round trip and the jitter buffer: packetisation and decoding, in ms.
const FIXED_DELAY_MS: f64 = 20.0;
/// A jitter buffer holds about so many times the interarrival jitter.
const JITTER_BUFFER: f64 = 2.0;
/// One-way delay from which conversations suffer, in ms (G.107, simplified by Cole and Rosenbluth).
const NOTICED_DELAY_MS: f64 = 177.3;
/// How well loss is borne (Bpl of G.107, in percent): speech with concealment, and video, which freezes.
const BORNE_BY_AUDIO: f64 = 10.0;
const BORNE_BY_VIDEO: f64 = 4.0;
/// How much of the score is for video layers that are wanted and there.
const FOR_LAYERS: f64 = 0.5;

/// Scores from which a connection counts as excellent and as good.
const EXCELLENT: f64 = 80.0;
const GOOD: f64 = 60.0;
/// By how much a limit must be passed for the level to change.
const MARGIN: f64 = 3.0;
/// How fast the smoothed score follows a worse and a better one; each step is one look, two seconds.
const FALL: f64 = 0.5;
const RISE: f64 = 0.25;
/// A level is kept at least for so long, unless the connection is lost or back.
const LEAST: Duration = Duration::from_secs(4);

/// What one look at a connection shows. What is not known counts as good.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Facts {
    pub round_trip_ms: Option<f64>,
    pub jitter_ms: Option<f64>,
    /// Lost and not repaired, 0 to 1: the worst stream of each kind, either way.
    pub audio_loss: f64,
    pub video_loss: f64,
    /// Of the video layers that are wanted, how many are there, 0 to 1: what it gets of others, and others of it.
    pub layers: Option<f64>,
}

/// 0 (unusable) to 100 (nothing to complain of).
pub fn score(facts: &Facts) -> f64 {
    let not_negative = |value: Option<f64>| value.filter(|it| it.is_finite()).unwrap_or_default().max(0.0);
    let delay = not_negative(facts.round_trip_ms) / 2.0
        + not_negative(facts.jitter_ms) * JITTER_BUFFER
        + FIXED_DELAY_MS;
    let delay_costs = 0.024 * delay + 0.11 * (delay - NOTICED_DELAY_MS).max(0.0);
    let loss_costs = |loss: f64, borne: f64| {
        let percent = not_negative(Some(loss)).min(1.0) * 100.0;
        95.0 * percent / (percent + borne)
    };
    let loss_costs =
        loss_costs(facts.audio_loss, BORNE_BY_AUDIO).max(loss_costs(facts.video_loss, BORNE_BY_VIDEO));
    let layers = facts.layers.map_or(1.0, |share| share.clamp(0.0, 1.0));
    let rating = (BEST - delay_costs - loss_costs).clamp(0.0, BEST);
    rating / BEST * 100.0 * (1.0 - FOR_LAYERS * (1.0 - layers))
}

/// Follows one connection from look to look.
#[derive(Debug, Clone)]
pub struct Grade {
    smoothed: Option<f64>,
    level: Quality,
    since: Instant,
}

impl Grade {
    /// Everything counts as excellent until something shows that it is not.
    pub fn new(now: Instant) -> Self {
        Self { smoothed: None, level: Quality::Excellent, since: now }
    }

    pub fn level(&self) -> Quality {
        self.level
    }

    /// The smoothed score, 0 to 100; `None` before the first look.
    pub fn score(&self) -> Option<f64> {
        self.smoothed
    }

    /// Takes what a look at a connection shows, or that the connection is lost. Returns whether the level changed.
    pub fn note(&mut self, now: Instant, facts: Option<&Facts>) -> bool {
        let Some(facts) = facts else {
            self.smoothed = Some(0.0);
            return self.set(now, Quality::Lost);
        };
        let score = score(facts);
        let before = self.smoothed.filter(|_| self.level != Quality::Lost);
        let smoothed = before
            .map_or(score, |before| before + (score - before) * if score < before { FALL } else { RISE });
        self.smoothed = Some(smoothed);
        let level = level_of(smoothed, self.level);
        let is_fresh = now.saturating_duration_since(self.since) < LEAST && self.level != Quality::Lost;
        !is_fresh && self.set(now, level)
    }

    fn set(&mut self, now: Instant, level: Quality) -> bool {
        let changes = level != self.level;
        if changes {
            (self.level, self.since) = (level, now);
        }
        changes
    }
}

/// The level of a score, for a connection that has one already: limits must be passed clearly.
fn level_of(score: f64, now: Quality) -> Quality {
    // Of the two levels that a limit divides, the one that it has keeps it a little longer.
    let passes = |limit: f64, has_it: bool| score >= if has_it { limit - MARGIN } else { limit + MARGIN };
    let (excellent, good) = match now {
        Quality::Excellent => (true, true),
        Quality::Good => (false, true),
        Quality::Poor => (false, false),
        // Back from nothing: the plain limits.
        Quality::Lost if score >= EXCELLENT => return Quality::Excellent,
        Quality::Lost if score >= GOOD => return Quality::Good,
        Quality::Lost => return Quality::Poor,
    };
    if passes(EXCELLENT, excellent) {
        Quality::Excellent
    } else if passes(GOOD, good) {
        Quality::Good
    } else {
        Quality::Poor
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rounded(facts: Facts) -> i64 {
        score(&facts).round() as i64
    }

    #[test]
    fn the_documented_examples_hold() {
        let none = Facts::default();
        let of = |round_trip_ms: f64, audio_loss: f64, video_loss: f64| Facts {
            round_trip_ms: Some(round_trip_ms),
            jitter_ms: Some(5.0),
            audio_loss,
            video_loss,
            layers: None,
        };
        assert_eq!(rounded(none), 99);
        assert_eq!(rounded(of(40.0, 0.0, 0.0)), 99);
        assert_eq!(rounded(of(300.0, 0.0, 0.0)), 95);
        assert_eq!(rounded(of(600.0, 0.0, 0.0)), 73);
        assert_eq!(rounded(of(40.0, 0.02, 0.0)), 82);
        assert_eq!(rounded(of(40.0, 0.05, 0.0)), 65);
        assert_eq!(rounded(of(40.0, 0.1, 0.0)), 48);
        assert_eq!(rounded(of(40.0, 0.0, 0.01)), 78);
        assert_eq!(rounded(of(40.0, 0.0, 0.05)), 42);
        assert_eq!(rounded(Facts { layers: Some(1.0 / 3.0), ..of(40.0, 0.0, 0.0) }), 66);
        assert_eq!(rounded(Facts { layers: Some(0.0), ..of(40.0, 0.0, 0.0) }), 49);
    }

    proptest! {
        #[test]
        fn a_score_is_in_range_and_nothing_that_gets_worse_makes_it_better(
            round_trip in 0.0f64..100_000.0, jitter in 0.0f64..10_000.0, audio in 0.0f64..1.0, video in 0.0f64..1.0,
            layers in 0.0f64..1.0, worse in 0.0f64..1.0,
        ) {
            let facts = Facts {
                round_trip_ms: Some(round_trip),
                jitter_ms: Some(jitter),
                audio_loss: audio,
                video_loss: video,
                layers: Some(layers),
            };
            let best = score(&facts);
            prop_assert!((0.0..=100.0).contains(&best));
            for worse in [
                Facts { round_trip_ms: Some(round_trip * (1.0 + worse)), ..facts },
                Facts { jitter_ms: Some(jitter * (1.0 + worse)), ..facts },
                Facts { audio_loss: audio + worse, ..facts },
                Facts { video_loss: video + worse, ..facts },
                Facts { layers: Some(layers * worse), ..facts },
            ] {
                prop_assert!(score(&worse) <= best);
            }
        }
    }

    #[test]
    fn nonsense_is_no_better_than_nothing() {
        for nonsense in [f64::NAN, f64::INFINITY, -5.0] {
            let facts =
                Facts { round_trip_ms: Some(nonsense), jitter_ms: Some(nonsense), ..Facts::default() };
            assert_eq!(rounded(facts), 99);
        }
        assert_eq!(rounded(Facts { audio_loss: 7.0, layers: Some(-3.0), ..Facts::default() }), 3);
    }

    fn audio_loss(audio_loss: f64) -> Facts {
        Facts { audio_loss, ..Facts::default() }
    }

    /// The levels after so many looks, each time that they change.
    fn levels(
        grade: &mut Grade,
        now: &mut Instant,
        looks: usize,
        facts: impl Fn(usize) -> Facts,
    ) -> Vec<Quality> {
        let mut levels = Vec::new();
        for look in 0..looks {
            *now += Duration::from_secs(2);
            if grade.note(*now, Some(&facts(look))) {
                levels.push(grade.level());
            }
        }
        levels
    }

    #[test]
    fn a_level_follows_what_lasts_and_not_what_flickers() {
        let mut now = Instant::now();
        let mut grade = Grade::new(now);
        assert_eq!(levels(&mut grade, &mut now, 50, |_| audio_loss(0.0)), []);
        // One bad look among good ones.
        let spike = |look: usize| audio_loss(if look.is_multiple_of(5) { 0.03 } else { 0.0 });
        assert_eq!(levels(&mut grade, &mut now, 50, spike), []);
        // Exactly around the limit between excellent and good (2.35 %): once at most.
        let around = |look: usize| audio_loss(if look.is_multiple_of(2) { 0.02 } else { 0.027 });
        assert!(levels(&mut grade, &mut now, 100, around).len() <= 1);
        levels(&mut grade, &mut now, 20, |_| audio_loss(0.0));
        assert_eq!(grade.level(), Quality::Excellent);
        // What lasts shows within three looks, and steps down by steps.
        assert_eq!(levels(&mut grade, &mut now, 3, |_| audio_loss(0.2)).last(), Some(&Quality::Poor));
        // And is forgiven more slowly.
        assert_eq!(levels(&mut grade, &mut now, 1, |_| audio_loss(0.0)), []);
        assert_eq!(
            levels(&mut grade, &mut now, 20, |_| audio_loss(0.0)),
            [Quality::Good, Quality::Excellent]
        );
    }

    #[test]
    fn a_lost_connection_shows_at_once_and_so_does_its_return() {
        let mut now = Instant::now();
        let mut grade = Grade::new(now);
        assert!(grade.note(now, None));
        assert_eq!((grade.level(), grade.score()), (Quality::Lost, Some(0.0)));
        assert!(!grade.note(now, None), "it is told once");
        now += Duration::from_secs(1);
        assert!(grade.note(now, Some(&audio_loss(0.0))));
        assert_eq!(grade.level(), Quality::Excellent);
        // A change that is younger than that is kept for a moment.
        assert!(!grade.note(now + Duration::from_secs(2), Some(&audio_loss(0.5))));
        assert!(grade.note(now + Duration::from_secs(4), Some(&audio_loss(0.5))));
        assert_eq!(grade.level(), Quality::Poor);
    }
}
