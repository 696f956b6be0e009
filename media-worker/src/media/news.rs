//! Whose connection has become better or worse, collected for a moment and told together: what ails a worker's network
//! ails everybody at once, and each event goes to everybody.

use std::time::{Duration, Instant};

use common::message::ParticipantQuality;
use common::model::{ParticipantId, Quality};

/// From the first change to the telling, and so between two.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct News {
    changed: Vec<ParticipantQuality>,
    due: Option<Instant>,
}

impl News {
    /// Somebody's quality is another now. Of several changes the last one is told.
    pub fn note(&mut self, now: Instant, participant_id: ParticipantId, quality: Quality) {
        match self.changed.iter_mut().find(|known| known.participant_id == participant_id) {
            Some(known) => known.quality = quality,
            None => self.changed.push(ParticipantQuality { participant_id, quality }),
        }
        self.due.get_or_insert(now + PAUSE);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be told now.
    pub fn take(&mut self, now: Instant) -> Option<Vec<ParticipantQuality>> {
        self.due.take_if(|due| *due <= now)?;
        Some(std::mem::take(&mut self.changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_moment_are_told_together_with_the_last_word_on_each() {
        let (mut news, start) = (News::default(), Instant::now());
        let [ada, ben] = [ParticipantId::new(), ParticipantId::new()];
        assert_eq!(news.take(start), None);
        news.note(start, ada, Quality::Poor);
        news.note(start + PAUSE / 2, ben, Quality::Good);
        news.note(start + PAUSE / 2, ada, Quality::Lost);
        assert_eq!(news.take(start + PAUSE / 2), None);
        let told = news.take(start + PAUSE).unwrap();
        let told: Vec<_> = told.iter().map(|it| (it.participant_id, it.quality)).collect();
        assert_eq!(told, [(ada, Quality::Lost), (ben, Quality::Good)]);
        assert_eq!((news.take(start + 9 * PAUSE), news.poll_timeout()), (None, None));
    }
}
