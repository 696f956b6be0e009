//! Ratings: the last one counts, what is known of the network stays, and sessions need not be there any more.

use std::sync::Arc;

use super::rating;
use crate::model::{NetworkSummary, ParticipantId, Rating};
use crate::store::Store;
use crate::time::UnixMillis;

pub async fn a_later_rating_takes_the_place_of_an_earlier_one(store: Arc<dyn Store>) {
    let first = rating();
    let session = first.session_id;
    let stored = || async { store.ratings(session, None, 10).await.unwrap() };
    assert_eq!(stored().await, []);
    assert!(store.put_rating(&first).await.unwrap());
    assert_eq!(stored().await, std::slice::from_ref(&first));
    // Without facts of its own it keeps those that are known; everything else is as it says.
    let later =
        Rating { stars: 1, comment: None, at: UnixMillis(first.at.0 + 1), network: None, ..first.clone() };
    assert!(store.put_rating(&later).await.unwrap());
    assert_eq!(stored().await, [Rating { network: first.network.clone(), ..later.clone() }]);
    // A late copy of the first one changes nothing.
    assert!(!store.put_rating(&first).await.unwrap());
    assert_eq!(stored().await[0].stars, 1);
    // The same once more does, and newer facts do.
    let network = first.network.clone().map(|network| NetworkSummary { duration_ms: 7, ..network });
    let again = Rating { network, comment: Some("$set: {stars: 5}".into()), ..later };
    assert!(store.put_rating(&again).await.unwrap());
    assert_eq!(stored().await, [again]);
}

pub async fn ratings_are_listed_by_session_in_pages(store: Arc<dyn Store>) {
    let mut of_one: Vec<Rating> = (0..5).map(|_| rating()).collect();
    let session = of_one[0].session_id;
    for (index, each) in of_one.iter_mut().enumerate() {
        (each.session_id, each.network) = (session, each.network.take().filter(|_| index != 2));
        assert!(store.put_rating(each).await.unwrap());
    }
    store.put_rating(&rating()).await.unwrap();
    of_one.sort_by_key(|each| each.participant_id);
    assert_eq!(store.ratings(session, None, 10).await.unwrap(), of_one);
    let after = |index: usize| Some(of_one[index].participant_id);
    assert_eq!(store.ratings(session, after(1), 2).await.unwrap(), of_one[2..4]);
    assert_eq!(store.ratings(session, after(4), 2).await.unwrap(), []);
    assert_eq!(store.ratings(session, None, 0).await.unwrap(), []);
    assert_eq!(store.ratings(rating().session_id, None, 10).await.unwrap(), []);
    let late = Some(ParticipantId::new());
    assert_eq!(store.ratings(session, late, 10).await.unwrap(), [], "all of these are older");
}

pub async fn of_eight_ratings_at_once_the_latest_stays(store: Arc<dyn Store>) {
    for _ in 0..5 {
        let first = rating();
        let given =
            (0..8).map(|index| Rating { at: UnixMillis(index), stars: 1 + index as u8 % 5, ..first.clone() });
        let tasks: Vec<_> = given
            .map(|each| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.put_rating(&each).await.unwrap() })
            })
            .collect();
        let mut last = false;
        for task in tasks {
            last = task.await.expect("the call did not panic");
        }
        assert!(last, "nothing refuses the latest");
        let stored = store.ratings(first.session_id, None, 10).await.unwrap();
        assert_eq!(stored, [Rating { at: UnixMillis(7), stars: 3, ..first }]);
    }
}
