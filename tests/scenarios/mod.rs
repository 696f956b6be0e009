//! What must be true of a deployment of any shape. `tests/single` and `tests/cluster` run the same list.

pub mod bad_input;
pub mod lost;
pub mod messages;
pub mod metrics;
pub mod once;
pub mod ratings;
pub mod revocation;
pub mod room;
pub mod secrets;
pub mod settings;
pub mod stats;
pub mod webhooks;
pub mod whip;

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

/// The same for scenarios that start a deployment with settings of their own.
macro_rules! scenarios_with_their_own {
    ($shape:expr; $($module:ident: $($scenario:ident),+ $(,)?;)+) => {
        $(mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    crate::scenarios::$module::$scenario($shape).await;
                }
            )+
        })+
    };
}
pub(crate) use scenarios_with_their_own;

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
            settings:
                only_cameras_of_the_last_who_spoke_are_sent,
                only_the_loudest_voices_are_forwarded,
                publishers_negotiate_the_codec_that_comes_first,
                bit_rates_are_set_for_a_session_and_for_a_participant;
            stats:
                a_client_reads_how_its_connection_stands,
                a_lost_connection_is_told_to_everyone;
            ratings:
                a_rating_is_kept_with_what_is_known_of_the_connection;
            once:
                a_join_that_is_sent_twice_happens_once,
                a_session_that_is_created_twice_is_one,
                sessions_created_at_once_are_each_there_once,
                muting_twice_with_one_key_is_told_once;
            messages:
                a_message_by_request_reaches_everyone_else_or_whom_it_names,
                a_message_that_is_sent_twice_is_told_once,
                messages_that_may_not_be_sent_are_refused,
                data_channels_carry_messages_and_events_reach_who_has_none,
                who_joins_again_hears_by_the_new_channels;
            revocation:
                who_is_removed_stays_away_until_invited_again,
                who_publishes_by_whip_and_is_removed_publishes_no_more,
                a_session_that_ends_takes_all_its_tokens_with_it;
            whip:
                a_stream_is_published_and_watched_and_ends,
                a_player_gets_who_comes_later_and_who_is_left,
                a_player_of_one_participant_gets_nobody_else,
                a_connection_trickles_and_restarts_ice_by_fragments,
                who_publishes_again_replaces_the_old_connection,
                who_hangs_up_is_gone,
                a_session_is_created_by_who_may,
                requests_that_do_not_fit_are_refused;
            bad_input:
                what_is_not_json_or_not_expected_is_refused,
                without_the_right_credentials_nothing_happens,
                descriptions_that_cannot_be_accepted_are_refused,
                signalling_out_of_order_is_refused,
                parameters_out_of_range_are_refused;
        }
        crate::scenarios::scenarios_with_their_own! { $shape;
            webhooks:
                everything_that_happens_is_told_in_order_and_signed,
                who_fails_or_hangs_delays_nobody_and_is_told_later,
                what_is_given_up_is_a_dead_letter_and_can_be_sent_again;
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
