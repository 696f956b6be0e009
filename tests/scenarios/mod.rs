//! What must be true of a deployment of any shape. `tests/single` and `tests/cluster` run the same list.

pub mod bad_input;
pub mod lost;
pub mod once;
pub mod room;

/// Makes a test of every scenario, each in a deployment of its own.
macro_rules! scenarios {
    ($shape:expr; $($module:ident: $($scenario:ident),+ $(,)?;)+) => {
        $(mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    let mut deployment = support::Deployment::start($shape).await;
                    crate::scenarios::$module::$scenario(&deployment).await;
                    crate::scenarios::still_there(&mut deployment);
                }
            )+
        })+
    };
}
pub(crate) use scenarios;

/// The scenarios by file, for the shape that is given.
macro_rules! all_scenarios {
    ($shape:expr) => {
        crate::scenarios::scenarios! { $shape;
            room:
                participants_receive_each_other,
                who_joins_late_gets_what_is_there,
                who_only_watches_is_offered_everything,
                leaving_is_told_and_ends_the_media,
                joining_again_replaces_the_endpoint,
                an_old_client_takes_nothing_from_the_new_one,
                muting_stops_the_media_and_is_told,
                a_track_can_be_published_and_unpublished_at_any_time,
                an_ice_restart_keeps_the_media,
                both_sides_may_negotiate_at_once,
                many_joins_cost_few_offers,
                closing_ends_it_for_everyone,
                a_client_that_vanishes_is_noticed;
            lost:
                who_restarts_ice_in_time_keeps_the_endpoint,
                who_is_lost_for_longer_may_join_again_at_once_from_elsewhere;
            once:
                a_join_that_is_sent_twice_happens_once,
                a_session_that_is_created_twice_is_one,
                sessions_created_at_once_are_each_there_once,
                muting_twice_with_one_key_is_told_once;
            bad_input:
                what_is_not_json_or_not_expected_is_refused,
                without_the_right_credentials_nothing_happens,
                descriptions_that_cannot_be_accepted_are_refused,
                signalling_out_of_order_is_refused,
                parameters_out_of_range_are_refused;
        }
    };
}
pub(crate) use all_scenarios;

/// No process died of what was done to it, and none saw a panic.
pub fn still_there(deployment: &mut support::Deployment) {
    for process in deployment.apis.iter_mut().chain(&mut deployment.workers) {
        assert!(process.running(), "a process ended:\n{}", process.log());
        assert!(!process.log().contains("panicked at"), "a panic:\n{}", process.log());
    }
}
