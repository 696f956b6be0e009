//! Bounded patience: asks again until it is so, and fails with a reason when it never is.

use std::future::Future;
use std::time::{Duration, Instant};

/// Between two looks. Short, so that a test takes hardly longer than what it waits for.
const PAUSE: Duration = Duration::from_millis(20);

/// `seconds`, stretched by the factor in `SWITCHYARD_TEST_PATIENCE` (0.1 to 100, default 1).
pub fn patience(seconds: f64) -> Duration {
    let factor = match std::env::var("SWITCHYARD_TEST_PATIENCE") {
        Ok(text) => text.parse::<f64>().expect("SWITCHYARD_TEST_PATIENCE is a number").clamp(0.1, 100.0),
        Err(_) => 1.0,
    };
    Duration::from_secs_f64(seconds * factor)
}

/// Waits up to 20 s (stretched by [`patience`]) until `look` gives a value.
///
/// # Panics
/// When time is over, with `what` and the last reason that `look` gave.
pub async fn eventually<T, F, Fut>(what: &str, look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    eventually_within(patience(20.0), what, look).await
}

/// The same with a bound of its own.
pub async fn eventually_within<T, F, Fut>(bound: Duration, what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        let reason = match look().await {
            Ok(value) => return value,
            Err(reason) => reason,
        };
        assert!(started.elapsed() < bound, "not within {bound:?}: {what}: {reason}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_value_once_it_is_there() {
        let mut looks = 0;
        let value = eventually("third look", || {
            looks += 1;
            let seen = looks;
            async move { if seen == 3 { Ok(seen) } else { Err(format!("look {seen}")) } }
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "a blue moon: still white")]
    async fn says_what_never_came() {
        let _: () = eventually_within(Duration::from_millis(50), "a blue moon", || async {
            Err("still white".to_owned())
        })
        .await;
    }
}
