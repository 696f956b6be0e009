//! Whether packets get through as they are sent: the last half second of arrivals held against when the same packets left.
//!
//! A path that carries less than is sent spreads packets, each a little more. One that stands still for a moment (a radio
//! link, a receiver without time to read) holds up one packet for long and then lets the others follow: that single step
//! says nothing about what the path carries, and is left out as far as no other comes near it.

use super::Micros;
use super::feedback::Arrival;

/// Length and number of the buckets; together half a second, as in [`RecentRate`](super::recent::RecentRate).
const BUCKET: Micros = 16_000;
const BUCKETS: usize = 32;
/// Between the first and the last packet, for anything to be said.
const LEAST: Micros = 100_000;
/// A clock that goes back further begins anew.
const STALE: Micros = 3_000_000;

/// Arrivals within the time of one bucket.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Of the first of them.
    arrived: Micros,
    sent: Micros,
    /// The most by which one of them came later after the one before than it was sent.
    step: Micros,
    /// Which bucket since the clock's epoch.
    number: i64,
}

/// What the last half second says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// How long it took to send the packets over how long they took to arrive, the hold-up left out: 1 while no queue grows, less
    /// while one does.
    pub through: f64,
    /// The part of the time that is left without the hold-up, 0 to 1.
    pub awake: f64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Passage {
    buckets: [Option<Bucket>; BUCKETS],
    newest: Option<Arrival>,
}

impl Passage {
    /// Takes what arrived, in the order of arrival.
    pub fn add(&mut self, packet: &Arrival) {
        let step = match &self.newest {
            Some(newest) if newest.arrived.saturating_sub(packet.arrived) > STALE => {
                self.buckets = [None; BUCKETS];
                0
            }
            // Overtaken on its way.
            Some(newest) if packet.sent < newest.sent || packet.arrived < newest.arrived => return,
            Some(newest) => packet.arrived.saturating_sub(newest.arrived) - (packet.sent - newest.sent),
            None => 0,
        };
        self.newest = Some(*packet);
        let number = packet.arrived.div_euclid(BUCKET);
        let bucket = &mut self.buckets[number.rem_euclid(BUCKETS as i64) as usize];
        match bucket {
            Some(bucket) if bucket.number == number => bucket.step = bucket.step.max(step),
            _ => *bucket = Some(Bucket { arrived: packet.arrived, sent: packet.sent, step, number }),
        }
    }

    /// `None` while there is too little to say anything.
    pub fn look(&self) -> Option<Found> {
        let newest = self.newest?;
        let last = newest.arrived.div_euclid(BUCKET);
        let within = || {
            self.buckets.iter().flatten().filter(move |it| (0..BUCKETS as i64).contains(&(last - it.number)))
        };
        let oldest = within().min_by_key(|it| it.number)?;
        // That of the first lies before the time that is looked at.
        let steps = within().filter(|it| it.number != oldest.number).map(|it| it.step.max(0));
        let (first, second) = steps.fold((0, 0), |(first, second), step| match step {
            step if step > first => (step, first),
            step => (first, second.max(step)),
        });
        let took = newest.arrived.saturating_sub(oldest.arrived);
        let held = (first - second).min(took);
        let sent = newest.sent - oldest.sent;
        (took >= LEAST && took - held >= BUCKET).then(|| Found {
            through: sent as f64 / (took - held) as f64,
            awake: (took - held) as f64 / took as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets each 20 ms, late by what is said of each.
    fn found(late: impl Fn(Micros) -> Micros) -> Found {
        let mut passage = Passage::default();
        for index in 0..100 {
            let sent = index * 20_000;
            passage.add(&Arrival { sent, arrived: sent + late(index), size: 500, cluster: None });
        }
        passage.look().unwrap()
    }

    #[test]
    fn a_queue_that_grows_is_told_from_one_moment_of_standstill() {
        assert_eq!(found(|_| 30_000), Found { through: 1.0, awake: 1.0 });
        let growing = found(|index| index * 20_000);
        assert!((growing.through - 0.5).abs() < 0.01 && growing.awake > 0.99, "{growing:?}");
        // For 140 ms nothing passes, then what waited follows at five times the pace.
        let held = found(|index| (140_000 - (index - 85).max(0) * 16_000).max(0) * i64::from(index >= 85));
        assert!(held.through > 1.0 && (0.6..0.8).contains(&held.awake), "{held:?}");
        let twice = found(|index| 100_000 * (i64::from(index >= 88) + i64::from(index >= 94)));
        assert!(twice.through < 0.7 && twice.awake > 0.99, "not once but twice: {twice:?}");
    }

    #[test]
    fn says_nothing_of_little_and_survives_times_that_make_no_sense() {
        let mut passage = Passage::default();
        assert_eq!(passage.look(), None);
        let times = [0, 50_000, i64::MAX / 4, -(1 << 60), 5, 5, 5, 1 << 59];
        for (index, arrived) in times.into_iter().enumerate() {
            passage.add(&Arrival { sent: index as i64 * 6000, arrived, size: 1, cluster: None });
            if let Some(found) = passage.look() {
                assert!(found.through.is_finite() && found.awake > 0.0);
            }
        }
    }
}
