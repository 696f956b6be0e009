//! How steadily media arrives: the longest silence of each participant's audio and video, over reconnections too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::media::Kind;

/// What one receiver hears. Shared by all its connections, so a silence counts from the last packet on the old one
/// to the first on the new one.
#[derive(Debug, Default)]
pub struct Flow {
    heard: Mutex<HashMap<(String, Kind), Heard>>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    last: Instant,
    longest: Duration,
    packets: u64,
}

impl Flow {
    fn heard(&self) -> MutexGuard<'_, HashMap<(String, Kind), Heard>> {
        self.heard.lock().expect("counting never panics")
    }

    /// A packet of that participant came.
    pub fn note(&self, participant_id: &str, kind: Kind) {
        let now = Instant::now();
        let mut heard = self.heard();
        match heard.get_mut(&(participant_id.to_owned(), kind)) {
            Some(heard) => {
                heard.longest = heard.longest.max(now.duration_since(heard.last));
                heard.last = now;
                heard.packets += 1;
            }
            None => {
                let first = Heard { last: now, longest: Duration::ZERO, packets: 1 };
                heard.insert((participant_id.to_owned(), kind), first);
            }
        }
    }

    /// Forgets the silences so far; one that is going on now counts from its last packet.
    pub fn reset(&self) {
        self.heard().values_mut().for_each(|heard| heard.longest = Duration::ZERO);
    }

    /// The longest silence since the last [`Self::reset`], the present one included. `None`: nothing was ever heard.
    pub fn longest_silence(&self, participant_id: &str, kind: Kind) -> Option<Duration> {
        let heard = *self.heard().get(&(participant_id.to_owned(), kind))?;
        Some(heard.longest.max(heard.last.elapsed()))
    }

    /// Packets so far.
    pub fn packets(&self, participant_id: &str, kind: Kind) -> u64 {
        self.heard().get(&(participant_id.to_owned(), kind)).map_or(0, |heard| heard.packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_kept_until_it_is_forgotten() {
        let flow = Flow::default();
        assert_eq!(flow.longest_silence("a", Kind::Audio), None);
        flow.note("a", Kind::Audio);
        std::thread::sleep(Duration::from_millis(30));
        flow.note("a", Kind::Audio);
        flow.note("a", Kind::Audio);
        assert!(flow.longest_silence("a", Kind::Audio).unwrap() >= Duration::from_millis(30));
        assert_eq!(flow.packets("a", Kind::Audio), 3);
        assert_eq!(flow.packets("a", Kind::Video), 0);
        flow.reset();
        flow.note("a", Kind::Audio);
        assert!(flow.longest_silence("a", Kind::Audio).unwrap() < Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(30));
        assert!(
            flow.longest_silence("a", Kind::Audio).unwrap() >= Duration::from_millis(30),
            "the present one"
        );
    }
}
