//! Times that are measured where nothing may be allocated: counted in buckets, read out now and then.

use std::time::Duration;

/// Upper bounds of the buckets, in µs; the last bucket has none.
pub const BOUNDS_US: [u64; 12] =
    [20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];

/// How many times fell into each bucket, and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    buckets: [Bucket; BOUNDS_US.len() + 1],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bucket {
    count: u64,
    sum_us: u64,
}

impl Durations {
    /// Notes one time as measured `count` times.
    pub fn note(&mut self, time: Duration, count: u64) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = &mut self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)];
        bucket.count += count;
        bucket.sum_us = bucket.sum_us.saturating_add(us.saturating_mul(count));
    }

    /// What came on top of `earlier`: a time in seconds within each bucket, and how often. Counts and sum are exact; where
    /// within its bucket a time was is not.
    pub fn since(&self, earlier: &Self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets.iter().zip(earlier.buckets).filter_map(|(now, before)| {
            let count = now.count.saturating_sub(before.count);
            let sum_us = now.sum_us.saturating_sub(before.sum_us);
            (count > 0).then(|| (sum_us as f64 / count as f64 / 1e6, count))
        })
    }
}

impl std::ops::AddAssign for Durations {
    fn add_assign(&mut self, other: Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            bucket.count += more.count;
            bucket.sum_us = bucket.sum_us.saturating_add(more.sum_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_out_once_and_in_their_buckets() {
        let mut durations = Durations::default();
        durations.note(Duration::from_micros(20), 2);
        let before = durations;
        durations.note(Duration::from_micros(30), 1);
        durations.note(Duration::from_micros(40), 3);
        durations.note(Duration::from_secs(1), 1);
        let new: Vec<_> = durations.since(&before).collect();
        assert_eq!(new, [(37.5e-6, 4), (1.0, 1)]);
        assert_eq!(before.since(&Durations::default()).collect::<Vec<_>>(), [(20e-6, 2)]);
    }
}
