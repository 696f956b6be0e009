//! Which packets arrived already (RFC 3711, section 3.3.2).

/// Packets that may arrive this much later than the newest. Retransmissions without RTX come late.
const WIDTH: u64 = 1024;
const WORDS: usize = (WIDTH / 64) as usize;

/// The newest index and what arrived just before it.
pub struct Window {
    highest: u64,
    /// One bit for each index, by its low bits; bits of indexes that are too old are cleared on the way.
    seen: [u64; WORDS],
}

impl Window {
    /// A stream's first packet.
    pub fn starting(index: u64) -> Self {
        let mut window = Self { highest: index, seen: [0; WORDS] };
        window.mark(index);
        window
    }

    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a packet is neither too old nor a repetition.
    pub fn is_new(&self, index: u64) -> bool {
        index > self.highest
            || self.highest - index < WIDTH
                && self.seen[(index % WIDTH / 64) as usize] & (1 << (index % 64)) == 0
    }

    /// Notes an authentic packet.
    pub fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= WIDTH {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..index {
                    self.seen[(skipped % WIDTH / 64) as usize] &= !(1 << (skipped % 64));
                }
            }
            self.highest = index;
        }
        self.mark(index);
    }

    fn mark(&mut self, index: u64) {
        self.seen[(index % WIDTH / 64) as usize] |= 1 << (index % 64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn accepts_each_index_once_and_nothing_too_old(
            start in 0u64..100_000,
            steps in proptest::collection::vec(-1500i64..1500, 1..400),
        ) {
            let mut window = Window::starting(start);
            let (mut seen, mut highest) = (HashSet::from([start]), start);
            for step in steps {
                let Some(index) = highest.checked_add_signed(step) else { continue };
                let expected = !seen.contains(&index) && index + WIDTH > highest;
                prop_assert_eq!(window.is_new(index), expected);
                if expected {
                    window.accept(index);
                    seen.insert(index);
                    highest = highest.max(index);
                    prop_assert_eq!(window.highest(), highest);
                }
            }
        }
    }
}
