//! Counts of durations in buckets that are 1.6 % wide: quantiles without keeping every value.

/// Buckets for each power of two.
const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Values below [`STEPS`] have a bucket each; then 64 for each further power of two of 64-bit values.
const BUCKETS: usize = STEPS * (64 - STEP_BITS as usize + 1);

/// A distribution of whole numbers, here microseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Box<[u32]>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS].into_boxed_slice(), count: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, value: u64) {
        let bucket = &mut self.buckets[bucket(value)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value, exactly.
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The smallest value that at least the share `quantile` (0 to 1) of all values does not exceed,
    /// to the width of its bucket. `None` when nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let rank = ((self.count as f64 * quantile).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return Some(highest(index).min(self.max));
            }
        }
        None
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let exponent = value.ilog2() - STEP_BITS;
    let step = (value >> exponent) as usize - STEPS;
    (exponent as usize + 1) * STEPS + step
}

/// The highest value that falls into a bucket.
fn highest(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let exponent = (index / STEPS - 1) as u32;
    let first = ((index % STEPS + STEPS) as u128) << exponent;
    u64::try_from(first + (1 << exponent) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_has_no_quantiles() {
        let histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max(), histogram.mean()), (None, None, None));
    }

    #[test]
    fn quantiles_of_a_known_row() {
        let mut histogram = Histogram::default();
        for value in 1..=60 {
            histogram.record(value);
        }
        assert_eq!(histogram.quantile(0.0), Some(1));
        assert_eq!(histogram.quantile(0.5), Some(30));
        assert_eq!(histogram.quantile(0.99), Some(60));
        assert_eq!(histogram.mean(), Some(30.5));
        let mut more = Histogram::default();
        more.record(5_000_000);
        histogram.merge(&more);
        assert_eq!(
            (histogram.count(), histogram.max(), histogram.quantile(1.0)),
            (61, Some(5_000_000), Some(5_000_000))
        );
    }

    proptest! {
        #[test]
        fn every_value_is_in_a_bucket_no_wider_than_promised(value: u64) {
            let index = bucket(value);
            prop_assert!(index < BUCKETS);
            let top = highest(index);
            prop_assert!(top >= value);
            prop_assert!(top - value <= value / STEPS as u64);
            prop_assert!(index == 0 || highest(index - 1) < value);
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_values(mut values in proptest::collection::vec(0u64..100_000, 1..200), quantile in 0.0f64..1.0) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let rank = ((values.len() as f64 * quantile).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let found = histogram.quantile(quantile).unwrap();
            prop_assert!(found >= exact && found - exact <= exact / STEPS as u64, "{} for {}", found, exact);
        }
    }
}
