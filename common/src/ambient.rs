//! What code takes from its surroundings without being handed it: the wall clock, random numbers and new ids.
//!
//! They are the system's, unless a simulation runs on this thread: [`steer`] puts its own source in their place there,
//! so that a whole schedule of several simulated processes replays from one seed. Nothing else may ask the system for
//! them where a decision follows from it; monotonic time is tokio's (`tokio::time::Instant`), which a paused runtime
//! steers by itself. Nonces and keys do not come from here.
//!
//! The price outside a simulation is one look at a thread-local.

use std::cell::RefCell;
use std::marker::PhantomData;

use uuid::{Builder, Uuid};

use crate::time::UnixMillis;

/// Stands in for the system on one thread.
pub trait Source {
    /// The wall clock.
    fn now(&mut self) -> UnixMillis;
    /// 64 random bits.
    fn random(&mut self) -> u64;
    /// One more than the last time.
    fn count(&mut self) -> u64;
}

thread_local! {
    static SOURCE: RefCell<Option<Box<dyn Source>>> = const { RefCell::new(None) };
}

/// While it lives, its thread is steered.
#[must_use = "dropping it gives the thread back to the system at once"]
pub struct Steered {
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Steered {
    fn drop(&mut self) {
        SOURCE.with_borrow_mut(|source| *source = None);
    }
}

/// Takes clock, randomness and ids on this thread from `source`.
pub fn steer(source: Box<dyn Source>) -> Steered {
    SOURCE.with_borrow_mut(|current| *current = Some(source));
    Steered { _not_send: PhantomData }
}

fn steered<T>(ask: impl FnOnce(&mut dyn Source) -> T) -> Option<T> {
    SOURCE.with_borrow_mut(|source| source.as_mut().map(|source| ask(&mut **source)))
}

/// The wall clock of the simulation that runs on this thread, if there is one.
pub(crate) fn wall_clock() -> Option<UnixMillis> {
    steered(|source| source.now())
}

/// A random factor from 0.5 up to 1.5: spreads what several processes would otherwise do at the same moment.
pub fn jitter() -> f64 {
    let bits = steered(|source| source.random()).unwrap_or_else(rand::random);
    // The upper 53 bits are all that a double holds.
    0.5 + (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A new UUID (version 7), later than those made before it here.
pub fn uuid() -> Uuid {
    match steered(|source| (source.now(), source.count())) {
        None => Uuid::now_v7(),
        Some((now, count)) => {
            let mut rest = [0; 10];
            rest[2..].copy_from_slice(&count.to_be_bytes());
            Builder::from_unix_timestamp_millis(now.0.unsigned_abs(), &rest).into_uuid()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventId;

    struct Fixed(u64);

    impl Source for Fixed {
        fn now(&mut self) -> UnixMillis {
            UnixMillis(1_000)
        }

        fn random(&mut self) -> u64 {
            u64::MAX
        }

        fn count(&mut self) -> u64 {
            self.0 += 1;
            self.0
        }
    }

    #[test]
    fn a_steered_thread_is_the_same_every_time_and_another_is_the_system() {
        let ids = || {
            let _steered = steer(Box::new(Fixed(0)));
            assert_eq!(UnixMillis::now(), UnixMillis(1_000));
            assert!((1.49..=1.5).contains(&jitter()));
            [EventId::new(), EventId::new()]
        };
        let first = ids();
        assert_eq!(first, ids());
        assert!(first[0] < first[1]);
        assert!(UnixMillis::now() > UnixMillis(1_000_000));
        assert_ne!(first[0], EventId::new());
    }

    #[test]
    fn jitter_spreads_around_one() {
        for _ in 0..1_000 {
            assert!((0.5..=1.5).contains(&jitter()));
        }
    }
}
