//! Every guard both ways: applied with exactly its effect, or refused with nothing written.

use std::sync::Arc;

use super::{applied, endpoint_of, participant, pipeline, placed, read, refused, session, settings, track};
use crate::model::{
    CommandId, DONE_COMMANDS_KEPT, EndpointId, EndpointState, Participant, ParticipantId, ParticipantState,
    Pipeline, PipelineId, PipelineState, REVOCATIONS_KEPT, Revocation, Session, SessionId, SessionSettings,
    SessionState, TrackId,
};
use crate::store::{Guarded, RemoveIf, Store};
use crate::time::UnixMillis;

/// Refused, with what is stored, which is what was stored before.
async fn nothing_written(store: &Arc<dyn Store>, before: &Session, outcome: Guarded) {
    assert_eq!(refused(outcome).as_ref(), Some(before));
    assert_eq!(read(store, before.id).await, *before);
}

pub async fn placing_needs_an_open_session_of_that_epoch_without_pipeline(store: Arc<dyn Store>) {
    let (stored, pipeline) = (session(), pipeline());
    store.insert_session(&stored).await.unwrap();
    for wrong in [-1, 1, i64::MAX, i64::MIN] {
        nothing_written(&store, &stored, store.place_pipeline(stored.id, wrong, &pipeline).await.unwrap())
            .await;
    }
    let placed = applied(store.place_pipeline(stored.id, 0, &pipeline).await.unwrap());
    let expected = Session {
        epoch: 1,
        pipelines: vec![pipeline.clone()],
        previous_worker_id: Some(pipeline.worker_id),
        ..stored.clone()
    };
    assert_eq!(placed, expected);
    assert_eq!(read(&store, stored.id).await, expected);

    let rival = super::pipeline();
    for epoch in [0, 1] {
        nothing_written(&store, &expected, store.place_pipeline(stored.id, epoch, &rival).await.unwrap())
            .await;
    }
    let closed = applied(store.close_session(stored.id, UnixMillis(7)).await.unwrap());
    nothing_written(&store, &closed, store.place_pipeline(stored.id, 1, &rival).await.unwrap()).await;
}

pub async fn a_repeated_placement_is_a_success(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    assert_eq!(applied(store.place_pipeline(stored.id, 0, &pipeline).await.unwrap()), stored);
    let dropped = applied(store.drop_pipeline(stored.id, 1, pipeline.id).await.unwrap());
    nothing_written(&store, &dropped, store.place_pipeline(stored.id, 0, &pipeline).await.unwrap()).await;
}

pub async fn dropping_a_pipeline_ends_what_was_on_it(store: Arc<dyn Store>) {
    let (mut stored, pipeline) = placed(&store, &["a", "b"]).await;
    let mut without_endpoint = participant("c", &pipeline);
    without_endpoint.endpoint = None;
    let elsewhere = participant("d", &super::pipeline());
    for each in [&without_endpoint, &elsewhere] {
        stored = applied(store.put_participant(stored.id, 1, each).await.unwrap());
    }
    let mut expected = stored.clone();
    expected.epoch = 2;
    expected.pipelines.clear();
    for lost in &mut expected.participants[..2] {
        lost.state = ParticipantState::Disconnected;
        lost.tracks.clear();
        lost.endpoint.as_mut().unwrap().state = EndpointState::Closed;
    }
    assert_eq!(applied(store.drop_pipeline(stored.id, 1, pipeline.id).await.unwrap()), expected);
    assert_eq!(read(&store, stored.id).await, expected);
    assert_eq!(expected.previous_worker_id, Some(pipeline.worker_id), "still known for the next placement");
}

pub async fn dropping_needs_that_pipeline_at_that_epoch(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    for epoch in [0, 2] {
        nothing_written(&store, &stored, store.drop_pipeline(stored.id, epoch, pipeline.id).await.unwrap())
            .await;
    }
    let unknown = store.drop_pipeline(stored.id, 1, PipelineId::new()).await.unwrap();
    nothing_written(&store, &stored, unknown).await;
    let dropped = applied(store.drop_pipeline(stored.id, 1, pipeline.id).await.unwrap());
    for epoch in [1, 2] {
        let again = store.drop_pipeline(stored.id, epoch, pipeline.id).await.unwrap();
        nothing_written(&store, &dropped, again).await;
    }
}

pub async fn moving_puts_the_new_pipeline_first_and_touches_nobody(store: Arc<dyn Store>) {
    let (stored, old) = placed(&store, &["a", "b"]).await;
    let (second, third) = (pipeline(), pipeline());
    let draining = |pipeline: &Pipeline| Pipeline { state: PipelineState::Draining, ..pipeline.clone() };
    let mut expected = Session {
        epoch: 2,
        pipelines: vec![second.clone(), draining(&old)],
        previous_worker_id: Some(second.worker_id),
        ..stored.clone()
    };
    assert_eq!(applied(store.move_pipeline(stored.id, 1, old.id, &second).await.unwrap()), expected);
    assert_eq!(read(&store, stored.id).await, expected);
    // The new one may drain before the old one has ended.
    expected.epoch = 3;
    expected.pipelines = vec![third.clone(), draining(&second), draining(&old)];
    expected.previous_worker_id = Some(third.worker_id);
    assert_eq!(applied(store.move_pipeline(stored.id, 2, second.id, &third).await.unwrap()), expected);
    assert_eq!(read(&store, stored.id).await, expected);
    // Joining goes on at the new epoch.
    let newcomer = participant("c", &third);
    expected.participants.push(newcomer.clone());
    expected.done_commands.push(newcomer.command_id);
    assert_eq!(applied(store.put_participant(stored.id, 3, &newcomer).await.unwrap()), expected);
}

pub async fn moving_needs_that_pipeline_first_at_that_epoch(store: Arc<dyn Store>) {
    let (stored, old) = placed(&store, &["a"]).await;
    let (to, rival) = (pipeline(), pipeline());
    for (epoch, from) in [(0, old.id), (2, old.id), (1, PipelineId::new()), (1, to.id)] {
        let outcome = store.move_pipeline(stored.id, epoch, from, &to).await.unwrap();
        nothing_written(&store, &stored, outcome).await;
    }
    let moved = applied(store.move_pipeline(stored.id, 1, old.id, &to).await.unwrap());
    for (epoch, from) in [(1, old.id), (2, old.id)] {
        let outcome = store.move_pipeline(stored.id, epoch, from, &rival).await.unwrap();
        nothing_written(&store, &moved, outcome).await;
    }
    let closed = applied(store.close_session(stored.id, UnixMillis(7)).await.unwrap());
    nothing_written(&store, &closed, store.move_pipeline(stored.id, 2, to.id, &rival).await.unwrap()).await;
}

pub async fn a_repeated_move_is_a_success(store: Arc<dyn Store>) {
    let (stored, old) = placed(&store, &["a"]).await;
    let to = pipeline();
    let moved = applied(store.move_pipeline(stored.id, 1, old.id, &to).await.unwrap());
    assert_eq!(applied(store.move_pipeline(stored.id, 1, old.id, &to).await.unwrap()), moved);
    let dropped = applied(store.drop_pipeline(stored.id, 2, to.id).await.unwrap());
    nothing_written(&store, &dropped, store.move_pipeline(stored.id, 1, old.id, &to).await.unwrap()).await;
    assert_eq!(
        dropped.pipeline().map(|pipeline| pipeline.id),
        Some(old.id),
        "the old one is all there is again"
    );
    let again = pipeline();
    let moved = applied(store.move_pipeline(stored.id, 3, old.id, &again).await.unwrap());
    assert_eq!((moved.epoch, moved.pipelines.len()), (4, 2));
}

pub async fn retiring_ends_what_was_left_on_the_old_pipeline(store: Arc<dyn Store>) {
    let (stored, old) = placed(&store, &["stays", "moves"]).await;
    let to = pipeline();
    applied(store.move_pipeline(stored.id, 1, old.id, &to).await.unwrap());
    let mut moves = participant("moves", &to);
    moves.id = stored.participants[1].id;
    let mut expected = applied(store.put_participant(stored.id, 2, &moves).await.unwrap());
    expected.pipelines = vec![to.clone()];
    let left = &mut expected.participants[0];
    left.state = ParticipantState::Disconnected;
    left.tracks.clear();
    left.endpoint.as_mut().unwrap().state = EndpointState::Closed;
    assert_eq!(applied(store.retire_pipeline(stored.id, old.id).await.unwrap()), expected);
    assert_eq!(read(&store, stored.id).await, expected);
    nothing_written(&store, &expected, store.retire_pipeline(stored.id, old.id).await.unwrap()).await;
}

pub async fn retiring_needs_a_draining_pipeline_behind_the_current_one(store: Arc<dyn Store>) {
    let (stored, old) = placed(&store, &["a"]).await;
    nothing_written(&store, &stored, store.retire_pipeline(stored.id, old.id).await.unwrap()).await;
    let to = pipeline();
    let moved = applied(store.move_pipeline(stored.id, 1, old.id, &to).await.unwrap());
    for other in [to.id, PipelineId::new()] {
        nothing_written(&store, &moved, store.retire_pipeline(stored.id, other).await.unwrap()).await;
    }
    // Draining, but all the session has: that is dropped, not retired.
    let alone = applied(store.drop_pipeline(stored.id, 2, to.id).await.unwrap());
    nothing_written(&store, &alone, store.retire_pipeline(stored.id, old.id).await.unwrap()).await;
}

pub async fn a_participant_is_added_or_replaced(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a", "b", "c"]).await;
    let mut rejoined = participant("$b {$ne: 1} \u{1F600}", &pipeline);
    rejoined.id = stored.participants[1].id;
    rejoined.tracks.clear();
    let mut expected = stored.clone();
    expected.participants[1] = rejoined.clone();
    expected.done_commands.push(rejoined.command_id);
    assert_eq!(
        applied(store.put_participant(stored.id, 1, &rejoined).await.unwrap()),
        expected,
        "in its place"
    );
    assert_eq!(applied(store.put_participant(stored.id, 1, &rejoined).await.unwrap()), expected, "and again");

    let mut bare = participant("d", &pipeline);
    bare.endpoint = None;
    expected.participants.push(bare.clone());
    expected.done_commands.push(bare.command_id);
    assert_eq!(applied(store.put_participant(stored.id, 1, &bare).await.unwrap()), expected, "at the end");
    let mut with_endpoint = participant("d", &pipeline);
    with_endpoint.id = bare.id;
    expected.participants[3] = with_endpoint.clone();
    expected.done_commands.push(with_endpoint.command_id);
    assert_eq!(applied(store.put_participant(stored.id, 1, &with_endpoint).await.unwrap()), expected);
    bare.command_id = CommandId::new();
    expected.participants[3] = bare.clone();
    expected.done_commands.push(bare.command_id);
    assert_eq!(
        applied(store.put_participant(stored.id, 1, &bare).await.unwrap()),
        expected,
        "no endpoint again"
    );
    assert_eq!(read(&store, stored.id).await, expected);
}

pub async fn putting_a_participant_needs_an_open_session_of_that_epoch(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    let newcomer = participant("b", &pipeline);
    for each in [&newcomer, &stored.participants[0]] {
        for epoch in [0, 2] {
            nothing_written(&store, &stored, store.put_participant(stored.id, epoch, each).await.unwrap())
                .await;
        }
    }
    let closed = applied(store.close_session(stored.id, UnixMillis(1)).await.unwrap());
    nothing_written(&store, &closed, store.put_participant(stored.id, 1, &newcomer).await.unwrap()).await;
}

pub async fn a_join_is_done_once(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a", "b"]).await;
    let (a, b) = (&stored.participants[0], &stored.participants[1]);
    // Who tries again without knowing that the try before it was stored may: nothing has come after it.
    let repeated = Participant { name: "again".into(), ..a.clone() };
    let stored = applied(store.put_participant(stored.id, 1, &repeated).await.unwrap());
    assert_eq!(stored.participants[0], repeated);
    assert_eq!(stored.done_commands, [a.command_id, b.command_id]);
    // Elsewhere, after the session has moved on, it would be there twice.
    let to = super::pipeline();
    let stored = applied(store.move_pipeline(stored.id, 1, pipeline.id, &to).await.unwrap());
    let elsewhere = Participant { endpoint: participant("a", &to).endpoint, ..repeated.clone() };
    nothing_written(&store, &stored, store.put_participant(stored.id, 2, &elsewhere).await.unwrap()).await;
    // Its endpoint was closed, it has joined again with another command, or it has left: that join is over.
    let closed = EndpointState::Closed;
    let stored = applied(store.set_endpoint_state(stored.id, a.id, endpoint_of(a), closed).await.unwrap());
    nothing_written(&store, &stored, store.put_participant(stored.id, 2, &repeated).await.unwrap()).await;
    let again = Participant { id: b.id, ..participant("b", &pipeline) };
    let stored = applied(store.put_participant(stored.id, 2, &again).await.unwrap());
    nothing_written(&store, &stored, store.put_participant(stored.id, 2, b).await.unwrap()).await;
    let removed = store.remove_participant(stored.id, b.id, RemoveIf::Present, None).await.unwrap();
    let stored = applied(removed);
    nothing_written(&store, &stored, store.put_participant(stored.id, 2, &again).await.unwrap()).await;
}

pub async fn revoked_tokens_join_no_more(store: Arc<dyn Store>) {
    let (stored, on) = placed(&store, &["a", "b"]).await;
    let (a, b) = (&stored.participants[0], &stored.participants[1]);
    let revoked = applied(store.revoke(stored.id, a.id, UnixMillis(50)).await.unwrap());
    let revocations = vec![Revocation { participant_id: a.id, at: UnixMillis(50) }];
    assert_eq!(revoked, Session { revocations: revocations.clone(), ..stored.clone() });
    // An earlier one changes nothing, and the same neither.
    for at in [50, 49] {
        assert_eq!(applied(store.revoke(stored.id, a.id, UnixMillis(at)).await.unwrap()), revoked);
    }
    let joining = |id, issued_at: Option<i64>| Participant {
        id,
        token_issued_at: issued_at.map(UnixMillis),
        ..participant("again", &on)
    };
    for old in [0, 49, 50] {
        let outcome = store.put_participant(stored.id, 1, &joining(a.id, Some(old))).await.unwrap();
        nothing_written(&store, &revoked, outcome).await;
    }
    // A newer token, the backend, and somebody else with an old one.
    for (id, issued_at) in [(a.id, Some(51)), (a.id, None), (b.id, Some(0))] {
        let joined = joining(id, issued_at);
        let after = applied(store.put_participant(stored.id, 1, &joined).await.unwrap());
        assert_eq!(after.participant(id), Some(&joined));
        assert_eq!(after.revocations, revocations);
    }
    // Who is not there can be revoked too; a later one of the same takes the earlier one's place.
    let absent = ParticipantId::new();
    applied(store.revoke(stored.id, absent, UnixMillis(60)).await.unwrap());
    let after = applied(store.revoke(stored.id, a.id, UnixMillis(70)).await.unwrap());
    let times: Vec<_> = after.revocations.iter().map(|it| (it.participant_id, it.at.0)).collect();
    assert_eq!(times, [(absent, 60), (a.id, 70)]);
    let closed = applied(store.close_session(stored.id, UnixMillis(80)).await.unwrap());
    nothing_written(&store, &closed, store.revoke(stored.id, a.id, UnixMillis(90)).await.unwrap()).await;
    assert_eq!(refused(store.revoke(SessionId::new(), a.id, UnixMillis(1)).await.unwrap()), None);
}

pub async fn the_latest_revocations_are_kept(store: Arc<dyn Store>) {
    let (stored, _) = placed(&store, &[]).await;
    let all: Vec<_> = (0..REVOCATIONS_KEPT + 3).map(|_| ParticipantId::new()).collect();
    for participant in &all {
        applied(store.revoke(stored.id, *participant, UnixMillis(5)).await.unwrap());
    }
    let kept: Vec<_> = read(&store, stored.id).await.revocations.iter().map(|it| it.participant_id).collect();
    assert_eq!(kept, all[3..]);
}

pub async fn a_leave_is_done_once(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    let a = &stored.participants[0];
    let leave = Some(CommandId::new());
    let left = applied(store.remove_participant(stored.id, a.id, RemoveIf::Present, leave).await.unwrap());
    assert_eq!(left.done_commands.last(), leave.as_ref());
    let again = Participant { id: a.id, ..participant("a", &pipeline) };
    let stored = applied(store.put_participant(stored.id, 1, &again).await.unwrap());
    let repeated = store.remove_participant(stored.id, a.id, RemoveIf::Present, leave).await.unwrap();
    nothing_written(&store, &stored, repeated).await;
    // One that found nobody: whoever comes later is not meant.
    let early = CommandId::new();
    let stored = applied(store.note_done(stored.id, early).await.unwrap());
    nothing_written(&store, &stored, store.note_done(stored.id, early).await.unwrap()).await;
    let repeated = store.remove_participant(stored.id, a.id, RemoveIf::Present, Some(early)).await.unwrap();
    nothing_written(&store, &stored, repeated).await;
    let other = Some(CommandId::new());
    applied(store.remove_participant(stored.id, a.id, RemoveIf::Present, other).await.unwrap());
}

pub async fn settings_are_replaced_once_and_counted(store: Arc<dyn Store>) {
    let (stored, _) = placed(&store, &["a"]).await;
    let (first, second) = (CommandId::new(), CommandId::new());
    // Of what the caller brings, the revision is not looked at.
    let wanted = SessionSettings { revision: 77, ..settings() };
    let after = applied(store.set_settings(stored.id, &wanted, first).await.unwrap());
    assert_eq!(after.settings, SessionSettings { revision: 1, ..settings() });
    assert_eq!(after.done_commands.last(), Some(&first));
    assert_eq!(after.participants, stored.participants, "and nothing else");
    let less = SessionSettings { last_n: Some(1), ..SessionSettings::default() };
    let after = applied(store.set_settings(stored.id, &less, second).await.unwrap());
    assert_eq!(after.settings, SessionSettings { revision: 2, ..less }, "what is absent is gone");
    nothing_written(&store, &after, store.set_settings(stored.id, &wanted, first).await.unwrap()).await;
    let none = SessionSettings::default();
    let after = applied(store.set_settings(stored.id, &none, CommandId::new()).await.unwrap());
    assert_eq!(after.settings, SessionSettings { revision: 3, ..none });
}

pub async fn the_newest_done_commands_are_kept(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    let noted: Vec<CommandId> = (0..DONE_COMMANDS_KEPT - 1).map(|_| CommandId::new()).collect();
    for command in &noted {
        applied(store.note_done(stored.id, *command).await.unwrap());
    }
    let full = read(&store, stored.id).await;
    assert_eq!(full.done_commands.len(), DONE_COMMANDS_KEPT);
    assert_eq!(full.done_commands[0], stored.participants[0].command_id);
    let newcomer = participant("b", &pipeline);
    let after = applied(store.put_participant(stored.id, 1, &newcomer).await.unwrap());
    assert_eq!(after.done_commands[..noted.len()], noted, "the oldest has made room");
    assert_eq!(after.done_commands[noted.len()..], [newcomer.command_id]);
    let leave = Some(CommandId::new());
    let removed = store.remove_participant(stored.id, newcomer.id, RemoveIf::Present, leave).await.unwrap();
    assert_eq!(applied(removed).done_commands[..noted.len() - 1], noted[1..]);
    let last = CommandId::new();
    let after = applied(store.note_done(stored.id, last).await.unwrap());
    assert_eq!(after.done_commands.len(), DONE_COMMANDS_KEPT);
    assert_eq!(after.done_commands.last(), Some(&last));
}

pub async fn the_participant_follows_its_endpoint(store: Arc<dyn Store>) {
    let (stored, _) = placed(&store, &["a", "b"]).await;
    let (participant, endpoint) = (stored.participants[1].id, endpoint_of(&stored.participants[1]));
    for (state, follows) in [
        (EndpointState::Connected, ParticipantState::Connected),
        (EndpointState::Disconnected, ParticipantState::Disconnected),
        (EndpointState::New, ParticipantState::Joined),
        (EndpointState::Closed, ParticipantState::Disconnected),
        (EndpointState::Closed, ParticipantState::Disconnected),
    ] {
        let mut expected = stored.clone();
        expected.participants[1].state = follows;
        expected.participants[1].endpoint.as_mut().unwrap().state = state;
        let outcome = store.set_endpoint_state(stored.id, participant, endpoint, state).await.unwrap();
        assert_eq!(applied(outcome), expected, "{state:?}");
        assert_eq!(read(&store, stored.id).await, expected);
    }
}

pub async fn endpoint_state_needs_that_endpoint(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a", "b"]).await;
    let mut bare = participant("c", &pipeline);
    bare.endpoint = None;
    let stored = applied(store.put_participant(stored.id, stored.epoch, &bare).await.unwrap());
    let (a, b) = (&stored.participants[0], &stored.participants[1]);
    for (participant, endpoint) in [
        (a.id, EndpointId::new()),
        (a.id, endpoint_of(b)),
        (ParticipantId::new(), endpoint_of(a)),
        (bare.id, endpoint_of(a)),
    ] {
        let state = EndpointState::Connected;
        let outcome = store.set_endpoint_state(stored.id, participant, endpoint, state).await.unwrap();
        nothing_written(&store, &stored, outcome).await;
    }
}

pub async fn tracks_need_that_endpoint(store: Arc<dyn Store>) {
    let (stored, _) = placed(&store, &["a", "b"]).await;
    let (a, b) = (&stored.participants[0], &stored.participants[1]);
    let tracks = [track(), track()];
    for (participant, endpoint) in
        [(a.id, EndpointId::new()), (a.id, endpoint_of(b)), (ParticipantId::new(), endpoint_of(a))]
    {
        let outcome = store.set_tracks(stored.id, participant, endpoint, &tracks).await.unwrap();
        nothing_written(&store, &stored, outcome).await;
    }
    let mut expected = stored.clone();
    for tracks in [&tracks[..], &tracks[1..], &[]] {
        expected.participants[0].tracks = tracks.to_vec();
        let outcome = store.set_tracks(stored.id, a.id, endpoint_of(a), tracks).await.unwrap();
        assert_eq!(applied(outcome), expected, "only these tracks of only this participant");
    }
    assert_eq!(read(&store, stored.id).await, expected);
}

pub async fn muting_needs_that_track(store: Arc<dyn Store>) {
    let (stored, _) = placed(&store, &["a", "b"]).await;
    let (a, b) = (&stored.participants[0], &stored.participants[1]);
    // Both publish a track of one id: only the named participant's may change.
    let shared = track();
    for each in [a, b] {
        let tracks = [track(), shared.clone()];
        applied(store.set_tracks(stored.id, each.id, endpoint_of(each), &tracks).await.unwrap());
    }
    let stored = read(&store, stored.id).await;
    for (participant, track) in [
        (a.id, TrackId::new()),
        (a.id, stored.participants[1].tracks[0].id),
        (ParticipantId::new(), shared.id),
    ] {
        let outcome = store.set_track_muted(stored.id, participant, track, true).await.unwrap();
        nothing_written(&store, &stored, outcome).await;
    }
    for muted in [true, true, false] {
        let mut expected = stored.clone();
        expected.participants[1].tracks[1].muted = muted;
        let outcome = store.set_track_muted(stored.id, b.id, shared.id, muted).await.unwrap();
        assert_eq!(applied(outcome), expected);
        assert_eq!(read(&store, stored.id).await, expected);
    }
}

pub async fn removing_needs_that_participant_and_endpoint(store: Arc<dyn Store>) {
    let (stored, _) = placed(&store, &["a", "b", "c"]).await;
    let (a, b, c) = (&stored.participants[0], &stored.participants[1], &stored.participants[2]);
    for (participant, only_if) in [
        (ParticipantId::new(), RemoveIf::Present),
        (ParticipantId::new(), RemoveIf::Endpoint(endpoint_of(a))),
        (a.id, RemoveIf::Endpoint(EndpointId::new())),
        (a.id, RemoveIf::Endpoint(endpoint_of(b))),
        (a.id, RemoveIf::OpenEndpoint(endpoint_of(b))),
    ] {
        let outcome = store.remove_participant(stored.id, participant, only_if, None).await.unwrap();
        nothing_written(&store, &stored, outcome).await;
    }
    let mut expected = stored.clone();
    expected.participants = vec![b.clone(), c.clone()];
    let outcome =
        store.remove_participant(stored.id, a.id, RemoveIf::Endpoint(endpoint_of(a)), None).await.unwrap();
    assert_eq!(applied(outcome), expected);
    expected.participants = vec![b.clone()];
    let outcome = store.remove_participant(stored.id, c.id, RemoveIf::Present, None).await.unwrap();
    assert_eq!(applied(outcome), expected);
    let again = store.remove_participant(stored.id, c.id, RemoveIf::Present, None).await.unwrap();
    nothing_written(&store, &expected, again).await;
    expected.participants.clear();
    let only_if = RemoveIf::OpenEndpoint(endpoint_of(b));
    let outcome = store.remove_participant(stored.id, b.id, only_if, None).await.unwrap();
    assert_eq!(applied(outcome), expected);
}

pub async fn who_lost_the_session_writes_nothing_about_its_endpoints(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    let (a, endpoint) = (stored.participants[0].id, endpoint_of(&stored.participants[0]));
    let track = stored.participants[0].tracks[0].id;
    let taken_over = applied(store.drop_pipeline(stored.id, stored.epoch, pipeline.id).await.unwrap());
    for state in [EndpointState::New, EndpointState::Connected, EndpointState::Disconnected] {
        let outcome = store.set_endpoint_state(stored.id, a, endpoint, state).await.unwrap();
        nothing_written(&store, &taken_over, outcome).await;
    }
    let late = [
        store.set_tracks(stored.id, a, endpoint, &[super::track()]).await.unwrap(),
        store.set_track_muted(stored.id, a, track, true).await.unwrap(),
        store.remove_participant(stored.id, a, RemoveIf::OpenEndpoint(endpoint), None).await.unwrap(),
    ];
    for outcome in late {
        nothing_written(&store, &taken_over, outcome).await;
    }
    // What looks after those who do not come back may remove them.
    let only_if = RemoveIf::Endpoint(endpoint);
    applied(store.remove_participant(stored.id, a, only_if, None).await.unwrap());
}

pub async fn closing_ends_everything_once(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    let expected = Session {
        state: SessionState::Closed,
        closed_at: Some(UnixMillis(42)),
        participants: vec![],
        pipelines: vec![],
        done_commands: vec![],
        ..stored.clone()
    };
    assert_eq!(applied(store.close_session(stored.id, UnixMillis(42)).await.unwrap()), expected);
    nothing_written(&store, &expected, store.close_session(stored.id, UnixMillis(43)).await.unwrap()).await;
    for outcome in every_other_change(&store, stored.id, &stored, pipeline.id).await {
        nothing_written(&store, &expected, outcome).await;
    }
}

pub async fn a_session_with_somebody_in_it_is_not_closed_as_an_empty_one(store: Arc<dyn Store>) {
    let (stored, _) = placed(&store, &["a"]).await;
    let outcome = store.close_empty_session(stored.id, UnixMillis(42)).await.unwrap();
    nothing_written(&store, &stored, outcome).await;
    let leaver = stored.participants[0].id;
    let empty = applied(store.remove_participant(stored.id, leaver, RemoveIf::Present, None).await.unwrap());
    let closed = applied(store.close_empty_session(stored.id, UnixMillis(43)).await.unwrap());
    let expected = Session {
        state: SessionState::Closed,
        closed_at: Some(UnixMillis(43)),
        pipelines: vec![],
        done_commands: vec![],
        ..empty
    };
    assert_eq!(closed, expected);
    nothing_written(&store, &expected, store.close_empty_session(stored.id, UnixMillis(44)).await.unwrap())
        .await;
    assert_eq!(refused(store.close_empty_session(SessionId::new(), UnixMillis(1)).await.unwrap()), None);
}

pub async fn nothing_changes_a_session_that_is_not_there(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    let missing = SessionId::new();
    let mut outcomes = every_other_change(&store, missing, &stored, pipeline.id).await;
    outcomes.push(store.close_session(missing, UnixMillis(1)).await.unwrap());
    for outcome in outcomes {
        assert_eq!(refused(outcome), None);
    }
    assert_eq!(store.session(missing).await.unwrap(), None, "and no update made it");
    assert_eq!(read(&store, stored.id).await, stored);
}

/// Every change but closing, of `session`, with arguments that fit `like`.
async fn every_other_change(
    store: &Arc<dyn Store>,
    session: SessionId,
    like: &Session,
    pipeline: PipelineId,
) -> Vec<Guarded> {
    let participant = &like.participants[0];
    let (id, endpoint) = (participant.id, endpoint_of(participant));
    let state = EndpointState::Connected;
    vec![
        store.place_pipeline(session, like.epoch, &super::pipeline()).await.unwrap(),
        store.drop_pipeline(session, like.epoch, pipeline).await.unwrap(),
        store.move_pipeline(session, like.epoch, pipeline, &super::pipeline()).await.unwrap(),
        store.retire_pipeline(session, pipeline).await.unwrap(),
        store.put_participant(session, like.epoch, participant).await.unwrap(),
        store.set_endpoint_state(session, id, endpoint, state).await.unwrap(),
        store.set_tracks(session, id, endpoint, &[track()]).await.unwrap(),
        store.set_track_muted(session, id, participant.tracks[0].id, true).await.unwrap(),
        store.remove_participant(session, id, RemoveIf::Present, None).await.unwrap(),
        store.remove_participant(session, id, RemoveIf::Endpoint(endpoint), None).await.unwrap(),
        store.revoke(session, id, UnixMillis(1)).await.unwrap(),
        store.note_done(session, CommandId::new()).await.unwrap(),
        store.set_settings(session, &settings(), CommandId::new()).await.unwrap(),
    ]
}
