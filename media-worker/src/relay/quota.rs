//! How many allocations there may be, altogether and for each user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub struct Quota {
    max: usize,
    max_per_user: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    users: HashMap<Arc<str>, usize>,
}

/// Which number is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    User,
    All,
}

impl Quota {
    pub fn new(max: usize, max_per_user: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_user, taken: Mutex::default() })
    }

    /// A place for one allocation of `who`, until it is dropped.
    ///
    /// # Errors
    /// There is none.
    pub fn take(self: &Arc<Self>, who: &str) -> Result<Place, Exceeded> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.max {
            return Err(Exceeded::All);
        }
        let who: Arc<str> = who.into();
        let of_user = taken.users.entry(who.clone()).or_default();
        if *of_user >= self.max_per_user {
            return Err(Exceeded::User);
        }
        *of_user += 1;
        taken.all += 1;
        Ok(Place { quota: self.clone(), who })
    }

    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

/// See [`Quota::take`].
pub struct Place {
    quota: Arc<Quota>,
    who: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.quota.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(of_user) = taken.users.get_mut(&self.who) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.users.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_for_each_and_for_all_and_come_back() {
        let quota = Quota::new(3, 2);
        let first = quota.take("ada").ok().unwrap();
        let _second = quota.take("ada").ok().unwrap();
        assert_eq!(quota.take("ada").err(), Some(Exceeded::User));
        let _third = quota.take("ben").ok().unwrap();
        assert_eq!(quota.take("cleo").err(), Some(Exceeded::All));
        drop(first);
        assert_eq!(quota.taken(), 2);
        let again = quota.take("cleo").ok().unwrap();
        drop(again);
        assert!(!quota.taken.lock().unwrap().users.contains_key("cleo"), "who has none takes no memory");
    }
}
