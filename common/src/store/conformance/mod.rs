//! The suite that both stores pass: the promises of [`crate::store`], one function each.
//!
//! Every function gets a store with nothing in it and panics where a promise is broken. [`store_conformance!`] makes a
//! test of each. Where something must be awaited, patience is bounded by [`PATIENCE`].
//!
//! [`store_conformance!`]: crate::store_conformance

use std::sync::Arc;
use std::time::Duration;

use super::{Guarded, SessionChange, SessionWatch, Store};
use crate::model::{
    Bitrates, Cause, CodecName, CommandId, Endpoint, EndpointId, EndpointState, EventId, Grants,
    NetworkSummary, Owed, Participant, ParticipantId, ParticipantState, Pipeline, PipelineId, PipelineState,
    QualityShares, Rating, RunId, Session, SessionId, SessionSettings, SessionState, TimelineEntry, Track,
    TrackId, TrackKind, TrackNote, TrackSource, Worker, WorkerId, WorkerLoad, WorkerState,
};
use crate::time::UnixMillis;

pub mod documents;
pub mod guards;
pub mod races;
pub mod ratings;
pub mod sequences;
pub mod watching;
pub mod webhooks;

/// How long a change may take to arrive on the slowest machine that runs this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Makes one test of every function of the suite. `$run` is called as `$run(|store| async { … }).await`, with an empty
/// store of its own as `Arc<dyn Store>`.
#[macro_export]
macro_rules! store_conformance {
    ($run:path) => {
        $crate::store_conformance! { $run, documents:
            a_session_is_read_back_as_it_was_inserted, an_id_is_inserted_once, what_is_not_there_is_none,
            sessions_are_listed_in_pages_and_by_filter, sessions_are_found_by_a_text,
            sessions_are_listed_by_the_workers_of_their_pipelines, only_sessions_closed_long_ago_are_deleted,
            a_worker_row_lives_from_put_to_remove, a_row_belongs_to_the_last_run_of_its_worker,
            open_sessions_are_outlined_for_those_who_look_after_them, the_timeline_is_numbered_and_read_in_pages,
            an_entry_is_appended_once,
            it_is_reachable
        }
        $crate::store_conformance! { $run, guards:
            placing_needs_an_open_session_of_that_epoch_without_pipeline, a_repeated_placement_is_a_success,
            dropping_a_pipeline_ends_what_was_on_it, dropping_needs_that_pipeline_at_that_epoch,
            moving_puts_the_new_pipeline_first_and_touches_nobody, moving_needs_that_pipeline_first_at_that_epoch,
            a_repeated_move_is_a_success, retiring_ends_what_was_left_on_the_old_pipeline,
            retiring_needs_a_draining_pipeline_behind_the_current_one, a_participant_is_added_or_replaced, putting_a_participant_needs_an_open_session_of_that_epoch,
            a_join_is_done_once, a_leave_is_done_once, revoked_tokens_join_no_more, the_latest_revocations_are_kept, settings_are_replaced_once_and_counted, the_newest_done_commands_are_kept,
            the_participant_follows_its_endpoint, endpoint_state_needs_that_endpoint, tracks_need_that_endpoint,
            muting_needs_that_track, removing_needs_that_participant_and_endpoint,
            who_lost_the_session_writes_nothing_about_its_endpoints, closing_ends_everything_once,
            a_session_with_somebody_in_it_is_not_closed_as_an_empty_one,
            nothing_changes_a_session_that_is_not_there
        }
        $crate::store_conformance! { $run, races:
            one_of_sixteen_placements_wins, one_of_eight_inserts_wins, one_of_eight_drops_wins, one_of_eight_moves_wins, a_timeline_has_no_gaps_whoever_appends,
            one_of_eight_burials_wins,
            changes_of_different_parts_all_survive
        }
        $crate::store_conformance! { $run, ratings:
            a_later_rating_takes_the_place_of_an_earlier_one, ratings_are_listed_by_session_in_pages,
            of_eight_ratings_at_once_the_latest_stays
        }
        $crate::store_conformance! { $run, webhooks:
            what_is_owed_is_found_by_receiver_and_session, an_entry_is_settled_once_for_each_receiver,
            what_was_given_up_is_listed_and_can_be_owed_again, a_lease_has_one_holder_until_it_runs_out,
            one_of_eight_takes_a_free_lease
        }
        $crate::store_conformance! { $run, watching:
            changes_arrive_in_order, nothing_falls_between_opening_and_listing,
            a_token_resumes_exactly_behind_its_change, every_watch_gets_every_change,
            what_changes_nothing_is_no_change, a_dropped_next_loses_nothing, a_foreign_token_is_lost_history
        }
    };
    ($run:path, $module:ident: $($name:ident),+ $(,)?) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    $run(|store| async move { $crate::store::conformance::$module::$name(store).await }).await;
                }
            )+
        }
    };
}

/// A new open session.
pub fn session() -> Session {
    Session {
        id: SessionId::new(),
        state: SessionState::Open,
        name: Some("stand-up".into()),
        created_at: UnixMillis(1_700_000_000_000),
        closed_at: None,
        key_id: "key1".into(),
        command_id: CommandId::new(),
        epoch: 0,
        pipelines: vec![],
        participants: vec![],
        previous_worker_id: None,
        done_commands: Vec::new(),
        settings: SessionSettings::default(),
        revocations: Vec::new(),
    }
}

/// Settings in which everything is set.
pub fn settings() -> SessionSettings {
    SessionSettings {
        revision: 0,
        last_n: Some(4),
        loudest_n: Some(3),
        codecs: vec![CodecName::H264, CodecName::Vp8],
        bitrates: Bitrates { start_bps: Some(300_000), min_bps: Some(50_000), max_bps: Some(2_000_000) },
    }
}

/// A new entry, for any session.
pub fn timeline_entry(what: &str) -> TimelineEntry {
    TimelineEntry {
        id: EventId::new(),
        session_id: SessionId::new(),
        number: 0,
        at: UnixMillis(1_700_000_000_002),
        what: what.into(),
        cause: Cause {
            command_id: Some(CommandId::new()),
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
            ..Cause::default()
        },
        participant_id: Some(ParticipantId::new()),
        track: Some(TrackNote { id: TrackId::new(), kind: Some(TrackKind::Video), source: None }),
        webhooks: Owed::default(),
    }
}

/// A rating of somebody's call, with all that can be known of it.
pub fn rating() -> Rating {
    Rating {
        session_id: SessionId::new(),
        participant_id: ParticipantId::new(),
        key_id: "key1".into(),
        stars: 4,
        comment: Some("a bit of echo".into()),
        at: UnixMillis(1_700_000_000_003),
        network: Some(NetworkSummary {
            endpoint_id: EndpointId::new(),
            duration_ms: 61_500,
            quality: QualityShares { excellent: 0.75, good: 0.125, poor: 0.125, lost: 0.0 },
            inbound_loss: Some(0.001),
            outbound_loss: None,
            round_trip_time_ms: Some(41.5),
            available_outgoing_bitrate_bps: Some(2_400_000),
            protocol: Some("udp".into()),
            remote_candidate_type: Some("prflx".into()),
        }),
    }
}

pub fn pipeline() -> Pipeline {
    Pipeline { id: PipelineId::new(), worker_id: WorkerId::new(), state: PipelineState::Ready }
}

/// A worker's row with a lease that has run out.
pub fn worker() -> Worker {
    Worker {
        id: WorkerId::new(),
        run: RunId::new(),
        address: "127.0.0.1:5000".into(),
        lease_until: UnixMillis(10),
        state: WorkerState::Ready,
        load: WorkerLoad::default(),
        broker_away_since: None,
    }
}

/// A participant with a new endpoint on the pipeline and one track.
pub fn participant(name: &str, on: &Pipeline) -> Participant {
    Participant {
        id: ParticipantId::new(),
        name: name.into(),
        state: ParticipantState::Joined,
        grants: Grants { can_publish: true, can_subscribe: true, admin: false, bitrates: Bitrates::UNSET },
        joined_at: UnixMillis(1_700_000_000_001),
        command_id: CommandId::new(),
        endpoint: Some(Endpoint {
            id: EndpointId::new(),
            pipeline_id: on.id,
            worker_id: on.worker_id,
            state: EndpointState::New,
        }),
        tracks: vec![track()],
        token_issued_at: None,
    }
}

pub fn track() -> Track {
    Track {
        id: TrackId::new(),
        kind: TrackKind::Video,
        source: TrackSource::Camera,
        muted: false,
        mid: "0".into(),
    }
}

fn endpoint_of(participant: &Participant) -> EndpointId {
    participant.endpoint.as_ref().expect("this test gave it an endpoint").id
}

/// Inserts a session, places a pipeline and puts these participants on it.
async fn placed(store: &Arc<dyn Store>, names: &[&str]) -> (Session, Pipeline) {
    let (mut stored, pipeline) = (session(), pipeline());
    store.insert_session(&stored).await.unwrap();
    stored = applied(store.place_pipeline(stored.id, 0, &pipeline).await.unwrap());
    for name in names {
        let participant = participant(name, &pipeline);
        stored = applied(store.put_participant(stored.id, stored.epoch, &participant).await.unwrap());
    }
    (stored, pipeline)
}

/// What the store has now.
async fn read(store: &Arc<dyn Store>, id: SessionId) -> Session {
    store.session(id).await.unwrap().expect("the session is stored")
}

/// The session after a change that must have been applied.
#[track_caller]
fn applied(outcome: Guarded) -> Session {
    match outcome {
        Guarded::Applied(session) => *session,
        Guarded::Refused(stored) => panic!("refused, stored is {stored:?}"),
    }
}

/// The session as stored when a change must have been refused.
#[track_caller]
fn refused(outcome: Guarded) -> Option<Session> {
    match outcome {
        Guarded::Refused(stored) => stored.map(|session| *session),
        Guarded::Applied(session) => panic!("applied, stored is now {session:?}"),
    }
}

/// The next change, within [`PATIENCE`].
#[track_caller]
pub fn next_of(watch: &mut Box<dyn SessionWatch>) -> impl Future<Output = SessionChange> + use<'_> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, watch.next()).await {
            Ok(Ok(change)) => change,
            Ok(Err(error)) => panic!("{caller}: the watch ended: {error}"),
            Err(_) => panic!("{caller}: no change within {PATIENCE:?}"),
        }
    }
}
