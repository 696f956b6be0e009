//! One copy of what comes from several queues: RabbitMQ delivers an event of a session once for each of its readers in this
//! process, and each of them keeps it until it is confirmed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, Weak};

use super::lock;
use crate::broker::Message;

/// Below so many entries nobody looks for those that are over.
const FEW: usize = 1_024;

/// The messages that are out.
#[derive(Default)]
pub(super) struct Messages(Mutex<Table>);

#[derive(Default)]
struct Table {
    hasher: RandomState,
    /// By the hash of their ids: of two with one hash the newer one stays.
    out: HashMap<u64, Weak<Message>>,
    /// With as many entries, those that are over are removed.
    full_at: usize,
}

impl Messages {
    /// The message itself, or the same one if that is still out.
    pub(super) fn share(&self, message: Message) -> Arc<Message> {
        let mut table = lock(&self.0);
        let key = table.hasher.hash_one(&message.message_id);
        if let Some(same) = table.out.get(&key).and_then(Weak::upgrade)
            && *same == message
        {
            return same;
        }
        let message = Arc::new(message);
        table.out.insert(key, Arc::downgrade(&message));
        if table.out.len() > table.full_at {
            table.out.retain(|_, message| message.strong_count() > 0);
            table.full_at = (table.out.len() * 2).max(FEW);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, body: &str) -> Message {
        Message { body: body.into(), message_id: id.into(), ttl: None }
    }

    #[test]
    fn a_message_that_comes_again_is_there_once_as_long_as_it_is_out() {
        let messages = Messages::default();
        let first = messages.share(message("evt_1", "a"));
        assert!(Arc::ptr_eq(&first, &messages.share(message("evt_1", "a"))));
        // Somebody else's id brought again with other contents is another message.
        let other = messages.share(message("evt_1", "b"));
        assert_eq!((first.body.as_slice(), other.body.as_slice()), (&b"a"[..], &b"b"[..]));
        assert!(!Arc::ptr_eq(&first, &messages.share(message("evt_2", "a"))));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let messages = Messages::default();
        let out: Vec<_> = (0..10).map(|id| messages.share(message(&format!("out_{id}"), ""))).collect();
        for id in 0..20_000 {
            messages.share(message(&format!("evt_{id}"), ""));
        }
        assert!(lock(&messages.0).out.len() <= 2 * FEW);
        for (id, there) in out.iter().enumerate() {
            assert!(Arc::ptr_eq(there, &messages.share(message(&format!("out_{id}"), ""))));
        }
    }
}
