//! How fast packets arrive at the other end: bytes in the last half second, by its clock.

use super::Micros;

/// Length and number of the buckets; together half a second.
const BUCKET: Micros = 16_000;
const BUCKETS: usize = 32;
/// Buckets of the quick look: enough to be exact while a queue feeds the path's narrowest part.
const QUICK: usize = 12;

/// See the module.
#[derive(Debug, Default)]
pub struct RecentRate {
    bytes: [u32; BUCKETS],
    /// The newest arrival.
    newest: Micros,
    first: Option<Micros>,
}

impl RecentRate {
    pub fn add(&mut self, arrived: Micros, size: u16) {
        let newest = self.newest.div_euclid(BUCKET);
        let bucket = arrived.div_euclid(BUCKET);
        if self.first.is_none() || bucket - newest >= BUCKETS as i64 || newest - bucket >= 100 {
            // The first, or after a gap (or a jump of the clock) that the window does not span.
            self.bytes = [0; BUCKETS];
            self.first = Some(arrived);
            self.newest = arrived;
        } else {
            for skipped in newest + 1..=bucket {
                self.bytes[place(skipped)] = 0;
            }
            self.newest = self.newest.max(arrived);
            if newest - bucket >= BUCKETS as i64 {
                return;
            }
        }
        let place = &mut self.bytes[place(bucket)];
        *place = place.saturating_add(u32::from(size));
    }

    /// In bit/s, over half a second. `None` before a quarter of that has passed.
    pub fn rate(&self) -> Option<f64> {
        self.over(BUCKETS - 1)
    }

    /// In bit/s, over the last fifth of a second.
    pub fn quick_rate(&self) -> Option<f64> {
        self.over(QUICK)
    }

    fn over(&self, full: usize) -> Option<f64> {
        let newest = self.newest.div_euclid(BUCKET);
        let start = ((newest - full as i64) * BUCKET).max(self.first?);
        let bytes: u64 = (0..=full as i64).map(|back| u64::from(self.bytes[place(newest - back)])).sum();
        let length = self.newest - start;
        (length >= QUICK as i64 / 2 * BUCKET).then(|| bytes as f64 * 8e6 / length as f64)
    }
}

fn place(bucket: i64) -> usize {
    bucket.rem_euclid(BUCKETS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_arrives_and_forgets_it() {
        let mut rate = RecentRate::default();
        assert_eq!(rate.rate(), None);
        for index in 0..100 {
            rate.add(index * 10_000, 1250);
        }
        let about = |found: Option<f64>, wanted: f64| {
            let found = found.unwrap();
            assert!((found / wanted - 1.0).abs() < 0.06, "{found} instead of {wanted}");
        };
        about(rate.rate(), 1e6);
        for index in 0..20 {
            rate.add(1_000_000 + index * 10_000, 625);
        }
        about(rate.quick_rate(), 5e5);
        rate.add(9_000_000, 1250);
        assert_eq!(rate.rate(), None, "after a gap it begins anew");
        rate.add(-(1 << 60), 1250);
        rate.add(1 << 60, 1250);
        assert_eq!(rate.rate(), None, "jumping clocks");
    }
}
