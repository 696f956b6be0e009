//! Chance that can be replayed: one number decides when things break.

use std::time::Duration;

/// Set it to what a failed run printed, to have the same moments again.
pub const SEED: &str = "SWITCHYARD_FAULTS_SEED";

/// A sequence of numbers that looks random and follows from its seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The seed from the environment, else a new one; says which.
    ///
    /// # Panics
    /// When the environment has something else than a number.
    pub fn from_environment(what: &str) -> Self {
        let seed = match std::env::var(SEED) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED} is a number, not {text:?}")),
            Err(_) => uuid::Uuid::new_v4().as_u64_pair().0,
        };
        println!("{what}: {SEED}={seed}");
        Self(seed)
    }

    /// An independent sequence for something that runs beside this one.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, `count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.number() % count as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.number() & 1 == 1
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.number() % (to - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_sequence_and_forks_differ() {
        let (mut one, mut other) = (Chance(7), Chance(7));
        assert_eq!(one.number(), other.number());
        let mut fork = one.fork();
        assert_ne!(fork.number(), one.number());
        assert!((0..1_000).all(|_| one.below(3) < 3 && one.millis(10, 20) < Duration::from_millis(20)));
    }
}
