//! Both versions' APIs and workers at once: whoever takes a command, it is done.

use support::Deployment;

use crate::{no_dead_letters, once, room, still_there, versions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_serve_the_same_sessions() {
    let versions = versions();
    let programs = [versions.old.as_path(), versions.new.as_path()];
    let mut deployment = Deployment::start_programs(&programs, &programs, &[]).await;
    // The first ones, which it counts.
    once::sessions_created_at_once_are_each_there_once(&deployment).await;
    // Each makes sessions of its own, on either worker: several rounds, so that both are met.
    for _ in 0..2 {
        room::participants_receive_each_other(&deployment).await;
        room::joining_again_replaces_the_endpoint(&deployment).await;
        once::muting_twice_with_one_key_is_told_once(&deployment).await;
    }
    room::who_only_watches_is_offered_everything(&deployment).await;
    room::muting_stops_the_media_and_is_told(&deployment).await;
    room::a_track_can_be_published_and_unpublished_at_any_time(&deployment).await;
    room::closing_ends_it_for_everyone(&deployment).await;
    once::a_join_that_is_sent_twice_happens_once(&deployment).await;
    for worker in &deployment.workers {
        assert!(worker.log().contains("command settled"), "each has done something:\n{}", worker.log());
    }
    no_dead_letters(&deployment).await;
    still_there(&mut deployment);
}
