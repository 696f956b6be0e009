//! Random sequences of changes against a model: every outcome and every document must be equal.
//!
//! The universe is small on purpose (two sessions, three participants, four endpoints …), so that guards hold and fail
//! about equally often and ids collide. Everything comes from the seed, the ids too, so that two stores given the same
//! seed end with the same documents, and a failure is repeated by its seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{participant, pipeline, rating, session, track};
use crate::model::{
    Bitrates, CodecName, CommandId, DONE_COMMANDS_KEPT, Endpoint, EndpointId, EndpointState, Participant,
    ParticipantId, ParticipantState, Pipeline, PipelineId, PipelineState, Rating, Revocation, Session,
    SessionId, SessionSettings, SessionState, Track, TrackId, WorkerId,
};
use crate::store::{Guarded, Inserted, RemoveIf, SessionFilter, Store};
use crate::time::UnixMillis;

/// One change with all its arguments.
#[derive(Debug, Clone)]
enum Change {
    Insert(Session),
    Place(SessionId, i64, Pipeline),
    Drop(SessionId, i64, PipelineId),
    Move(SessionId, i64, PipelineId, Pipeline),
    Retire(SessionId, PipelineId),
    Put(SessionId, i64, Participant),
    EndpointState(SessionId, ParticipantId, EndpointId, EndpointState),
    Tracks(SessionId, ParticipantId, EndpointId, Vec<Track>),
    Muted(SessionId, ParticipantId, TrackId, bool),
    Remove(SessionId, ParticipantId, RemoveIf, Option<CommandId>),
    Revoke(SessionId, ParticipantId, UnixMillis),
    Done(SessionId, CommandId),
    Settings(SessionId, SessionSettings, CommandId),
    Close(SessionId, UnixMillis),
    DeleteClosed(UnixMillis),
    Rate(Rating),
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Inserted(Inserted),
    Guarded(Guarded),
    Deleted(u64),
    Rated(bool),
}

/// Makes `steps` random changes, compares each outcome and the documents after each with the model, and returns the
/// documents at the end.
pub async fn random_changes_agree_with_the_model(
    store: Arc<dyn Store>,
    seed: u64,
    steps: usize,
) -> Vec<Session> {
    let mut random = Random(seed);
    let universe = Universe::new(&mut random);
    let mut model = Model::default();
    for step in 0..steps {
        let change = universe.change(&mut random, &model);
        let expected = model.apply(&change);
        let outcome = apply(&store, &change).await;
        assert_eq!(outcome, expected, "seed {seed}, step {step}: {change:?}");
        let documents = store.sessions(&SessionFilter::default()).await.unwrap();
        assert_eq!(documents, model.documents(), "seed {seed}, after step {step}: {change:?}");
        for session in &universe.sessions {
            let ratings = store.ratings(*session, None, 100).await.unwrap();
            assert_eq!(ratings, model.ratings(*session), "seed {seed}, after step {step}: {change:?}");
        }
    }
    model.documents()
}

async fn apply(store: &Arc<dyn Store>, change: &Change) -> Outcome {
    let guarded = match change.clone() {
        Change::Insert(session) => return Outcome::Inserted(store.insert_session(&session).await.unwrap()),
        Change::DeleteClosed(before) => {
            return Outcome::Deleted(store.delete_closed_sessions(before).await.unwrap());
        }
        Change::Rate(rating) => return Outcome::Rated(store.put_rating(&rating).await.unwrap()),
        Change::Place(session, epoch, pipeline) => store.place_pipeline(session, epoch, &pipeline).await,
        Change::Drop(session, epoch, pipeline) => store.drop_pipeline(session, epoch, pipeline).await,
        Change::Move(session, epoch, from, to) => store.move_pipeline(session, epoch, from, &to).await,
        Change::Retire(session, pipeline) => store.retire_pipeline(session, pipeline).await,
        Change::Put(session, epoch, participant) => store.put_participant(session, epoch, &participant).await,
        Change::EndpointState(session, participant, endpoint, state) => {
            store.set_endpoint_state(session, participant, endpoint, state).await
        }
        Change::Tracks(session, participant, endpoint, tracks) => {
            store.set_tracks(session, participant, endpoint, &tracks).await
        }
        Change::Muted(session, participant, track, muted) => {
            store.set_track_muted(session, participant, track, muted).await
        }
        Change::Remove(session, participant, only_if, by) => {
            store.remove_participant(session, participant, only_if, by).await
        }
        Change::Revoke(session, participant, at) => store.revoke(session, participant, at).await,
        Change::Done(session, command) => store.note_done(session, command).await,
        Change::Settings(session, settings, by) => store.set_settings(session, &settings, by).await,
        Change::Close(session, at) => store.close_session(session, at).await,
    };
    Outcome::Guarded(guarded.unwrap())
}

/// The promises once more, as plainly as possible: a guard that looks, then an effect.
#[derive(Default)]
struct Model(BTreeMap<SessionId, Session>, BTreeMap<(SessionId, ParticipantId), Rating>);

impl Model {
    fn documents(&self) -> Vec<Session> {
        self.0.values().cloned().collect()
    }

    fn ratings(&self, session: SessionId) -> Vec<Rating> {
        self.1.values().filter(|rating| rating.session_id == session).cloned().collect()
    }

    fn apply(&mut self, change: &Change) -> Outcome {
        match change {
            Change::Rate(rating) => {
                let key = (rating.session_id, rating.participant_id);
                let before = self.1.get(&key).cloned();
                let is_late = before.as_ref().is_some_and(|before| before.at > rating.at);
                if !is_late {
                    let mut after = rating.clone();
                    after.network = after.network.or(before.and_then(|before| before.network));
                    self.1.insert(key, after);
                }
                Outcome::Rated(!is_late)
            }
            Change::Insert(session) => Outcome::Inserted(match self.0.get(&session.id) {
                Some(existing) => Inserted::Existing(Box::new(existing.clone())),
                None => {
                    self.0.insert(session.id, session.clone());
                    Inserted::New
                }
            }),
            Change::DeleteClosed(before) => {
                let count = self.0.len();
                self.0.retain(|_, session| session.closed_at.is_none_or(|at| at >= *before));
                Outcome::Deleted((count - self.0.len()) as u64)
            }
            Change::Place(id, ..)
            | Change::Drop(id, ..)
            | Change::Move(id, ..)
            | Change::Retire(id, ..)
            | Change::Put(id, ..)
            | Change::EndpointState(id, ..)
            | Change::Tracks(id, ..)
            | Change::Muted(id, ..)
            | Change::Remove(id, ..)
            | Change::Revoke(id, ..)
            | Change::Done(id, ..)
            | Change::Settings(id, ..)
            | Change::Close(id, ..) => Outcome::Guarded(match self.0.get_mut(id) {
                None => Guarded::Refused(None),
                Some(session) if guard(session, change) => {
                    effect(session, change);
                    Guarded::Applied(Box::new(session.clone()))
                }
                Some(session) => Guarded::Refused(Some(Box::new(session.clone()))),
            }),
        }
    }
}

fn stands(session: &Session, epoch: i64, pipeline: PipelineId) -> bool {
    session.epoch == epoch + 1 && session.pipelines.first().is_some_and(|current| current.id == pipeline)
}

fn has(session: &Session, participant: ParticipantId, endpoint: EndpointId) -> bool {
    let found = session.participant(participant).and_then(|found| found.endpoint.as_ref());
    found.map(|found| found.id) == Some(endpoint)
}

fn has_open(session: &Session, participant: ParticipantId, endpoint: EndpointId) -> bool {
    let found = session.participant(participant).and_then(|found| found.endpoint.as_ref());
    has(session, participant, endpoint) && found.is_some_and(|found| found.state != EndpointState::Closed)
}

fn guard(session: &Session, change: &Change) -> bool {
    let open = session.state == SessionState::Open;
    match change {
        Change::Place(_, epoch, pipeline) => {
            stands(session, *epoch, pipeline.id)
                || (open && session.epoch == *epoch && session.pipelines.is_empty())
        }
        Change::Drop(_, epoch, pipeline) => {
            session.epoch == *epoch && session.pipelines.iter().any(|current| current.id == *pipeline)
        }
        Change::Move(_, epoch, from, to) => {
            let first = session.pipelines.first().map(|current| current.id);
            stands(session, *epoch, to.id) || (open && session.epoch == *epoch && first == Some(*from))
        }
        Change::Retire(_, pipeline) => match &session.pipelines[..] {
            [first, rest @ ..] => {
                let is_it = |old: &Pipeline| old.id == *pipeline && old.state == PipelineState::Draining;
                first.id != *pipeline && rest.iter().any(is_it)
            }
            [] => false,
        },
        Change::Put(_, epoch, participant) => {
            let join = participant.command_id;
            let stands = session.participant(participant.id).is_some_and(|entry| {
                let state = entry.endpoint.as_ref().map(|endpoint| endpoint.state);
                let on = |it: &Participant| it.endpoint.as_ref().map(|endpoint| endpoint.pipeline_id);
                entry.command_id == join
                    && on(entry) == on(participant)
                    && state != Some(EndpointState::Closed)
            });
            let is_revoked = |it: &Revocation| {
                it.participant_id == participant.id
                    && participant.token_issued_at.is_some_and(|at| at <= it.at)
            };
            if session.revocations.iter().any(is_revoked) {
                return false;
            }
            open && session.epoch == *epoch && (stands || !session.done_commands.contains(&join))
        }
        Change::Remove(_, _, _, Some(leave)) if session.done_commands.contains(leave) => false,
        Change::Done(_, command) | Change::Settings(_, _, command) => {
            open && !session.done_commands.contains(command)
        }
        Change::EndpointState(_, participant, endpoint, EndpointState::Closed) => {
            has(session, *participant, *endpoint)
        }
        Change::EndpointState(_, participant, endpoint, _) | Change::Tracks(_, participant, endpoint, _) => {
            has_open(session, *participant, *endpoint)
        }
        Change::Muted(_, participant, track, _) => session
            .participant(*participant)
            .is_some_and(|found| found.tracks.iter().any(|published| published.id == *track)),
        Change::Remove(_, participant, RemoveIf::Present, _) => session.participant(*participant).is_some(),
        Change::Remove(_, participant, RemoveIf::Endpoint(endpoint), _) => {
            has(session, *participant, *endpoint)
        }
        Change::Remove(_, participant, RemoveIf::OpenEndpoint(endpoint), _) => {
            has_open(session, *participant, *endpoint)
        }
        Change::Close(..) | Change::Revoke(..) => open,
        Change::Insert(_) | Change::DeleteClosed(_) | Change::Rate(_) => unreachable!("not guarded"),
    }
}

fn effect(session: &mut Session, change: &Change) {
    let of = |session: &mut Session, id: ParticipantId, to: &dyn Fn(&mut Participant)| {
        session.participants.iter_mut().filter(|participant| participant.id == id).for_each(to);
    };
    match change.clone() {
        Change::Place(_, epoch, pipeline) => {
            if session.epoch == epoch {
                session.previous_worker_id = Some(pipeline.worker_id);
                session.pipelines = vec![pipeline];
                session.epoch = epoch + 1;
            }
        }
        Change::Move(_, epoch, _, to) => {
            if session.epoch == epoch {
                session.previous_worker_id = Some(to.worker_id);
                session.epoch = epoch + 1;
                let old = std::mem::replace(&mut session.pipelines, vec![to]).into_iter();
                session.pipelines.extend(old.map(|old| Pipeline { state: PipelineState::Draining, ..old }));
            }
        }
        Change::Drop(_, _, pipeline) | Change::Retire(_, pipeline) => {
            session.epoch += i64::from(matches!(change, Change::Drop(..)));
            session.pipelines.retain(|current| current.id != pipeline);
            for participant in &mut session.participants {
                if participant.endpoint.as_ref().map(|endpoint| endpoint.pipeline_id) == Some(pipeline) {
                    participant.tracks = vec![];
                    participant.state = ParticipantState::Disconnected;
                    participant
                        .endpoint
                        .iter_mut()
                        .for_each(|endpoint| endpoint.state = EndpointState::Closed);
                }
            }
        }
        Change::Put(_, _, participant) => {
            note_done(session, participant.command_id);
            if session.participant(participant.id).is_none() {
                session.participants.push(participant);
            } else {
                of(session, participant.id, &|entry| *entry = participant.clone());
            }
        }
        Change::EndpointState(_, participant, _, state) => of(session, participant, &|entry| {
            entry.endpoint.iter_mut().for_each(|endpoint| endpoint.state = state);
            entry.state = match state {
                EndpointState::New => ParticipantState::Joined,
                EndpointState::Connected => ParticipantState::Connected,
                _ => ParticipantState::Disconnected,
            };
        }),
        Change::Tracks(_, participant, _, tracks) => {
            of(session, participant, &|entry| entry.tracks = tracks.clone());
        }
        Change::Muted(_, participant, track, muted) => of(session, participant, &|entry| {
            let published = entry.tracks.iter_mut().filter(|published| published.id == track);
            published.for_each(|published| published.muted = muted);
        }),
        Change::Remove(_, participant, _, by) => {
            session.participants.retain(|entry| entry.id != participant);
            by.into_iter().for_each(|leave| note_done(session, leave));
        }
        Change::Revoke(_, participant_id, at) => {
            let before = session.revocations.iter().find(|it| it.participant_id == participant_id);
            if before.is_none_or(|before| before.at < at) {
                session.revocations.retain(|it| it.participant_id != participant_id);
                session.revocations.push(Revocation { participant_id, at });
            }
        }
        Change::Done(_, command) => note_done(session, command),
        Change::Settings(_, settings, by) => {
            session.settings = SessionSettings { revision: session.settings.revision + 1, ..settings };
            note_done(session, by);
        }
        Change::Close(_, at) => {
            session.state = SessionState::Closed;
            session.closed_at = Some(at);
            session.participants = vec![];
            session.pipelines = vec![];
            session.done_commands = vec![];
        }
        Change::Insert(_) | Change::DeleteClosed(_) | Change::Rate(_) => unreachable!("not guarded"),
    }
}

fn note_done(session: &mut Session, command: CommandId) {
    if !session.done_commands.contains(&command) {
        session.done_commands.push(command);
        if session.done_commands.len() > DONE_COMMANDS_KEPT {
            session.done_commands.remove(0);
        }
    }
}

/// All the ids there are.
struct Universe {
    sessions: Vec<SessionId>,
    participants: Vec<ParticipantId>,
    endpoints: Vec<EndpointId>,
    pipelines: Vec<Pipeline>,
    tracks: Vec<Track>,
    commands: Vec<CommandId>,
}

impl Universe {
    fn new(random: &mut Random) -> Self {
        Self {
            sessions: (0..2).map(|_| SessionId::from_uuid(random.uuid())).collect(),
            participants: (0..3).map(|_| ParticipantId::from_uuid(random.uuid())).collect(),
            endpoints: (0..4).map(|_| EndpointId::from_uuid(random.uuid())).collect(),
            pipelines: (0..3)
                .map(|_| Pipeline {
                    id: PipelineId::from_uuid(random.uuid()),
                    worker_id: WorkerId::from_uuid(random.uuid()),
                    ..pipeline()
                })
                .collect(),
            tracks: (0..4).map(|_| Track { id: TrackId::from_uuid(random.uuid()), ..track() }).collect(),
            commands: (0..12).map(|_| CommandId::from_uuid(random.uuid())).collect(),
        }
    }

    /// A random change. Epochs and pipelines are mostly those of now, so that sequences get somewhere.
    fn change(&self, random: &mut Random, model: &Model) -> Change {
        let session = *random.one_of(&self.sessions);
        let now = model.0.get(&session);
        let stale = if random.below(4) == 0 { random.below(3) as i64 - 1 } else { 0 };
        let epoch = now.map_or(0, |now| now.epoch) + stale;
        let participant = *random.one_of(&self.participants);
        let endpoint = *random.one_of(&self.endpoints);
        match random.below(61) {
            0..4 => Change::Insert(self.session(session, random)),
            4..9 => Change::Place(session, epoch, random.one_of(&self.pipelines).clone()),
            9..12 => {
                let current = now.and_then(Session::pipeline).filter(|_| random.below(4) > 0);
                let pipeline = current.unwrap_or_else(|| random.one_of(&self.pipelines)).id;
                Change::Drop(session, epoch, pipeline)
            }
            12..20 => Change::Put(session, epoch, self.participant(participant, random)),
            20..26 => {
                let states = [
                    EndpointState::New,
                    EndpointState::Connected,
                    EndpointState::Disconnected,
                    EndpointState::Closed,
                ];
                Change::EndpointState(session, participant, endpoint, *random.one_of(&states))
            }
            26..30 => Change::Tracks(session, participant, endpoint, self.tracks(random)),
            30..34 => {
                let track = random.one_of(&self.tracks).id;
                Change::Muted(session, participant, track, random.below(2) == 0)
            }
            34..38 => {
                let kinds =
                    [RemoveIf::Present, RemoveIf::Endpoint(endpoint), RemoveIf::OpenEndpoint(endpoint)];
                let by = (random.below(2) == 0).then(|| self.command(random));
                Change::Remove(session, participant, *random.one_of(&kinds), by)
            }
            40..45 => {
                let current = now.and_then(Session::pipeline).filter(|_| random.below(4) > 0);
                let from = current.unwrap_or_else(|| random.one_of(&self.pipelines)).id;
                Change::Move(session, epoch, from, random.one_of(&self.pipelines).clone())
            }
            45..48 => {
                let old = now.and_then(|now| now.pipelines.last()).filter(|_| random.below(4) > 0);
                Change::Retire(session, old.unwrap_or_else(|| random.one_of(&self.pipelines)).id)
            }
            48..50 => Change::Done(session, self.command(random)),
            50..55 => Change::Rate(self.rating(session, participant, endpoint, random)),
            55..58 => Change::Settings(session, self.settings(random), self.command(random)),
            58..61 => Change::Revoke(session, participant, UnixMillis(random.below(4) as i64)),
            38 => Change::Close(session, UnixMillis(random.below(10) as i64)),
            _ => Change::DeleteClosed(UnixMillis(random.below(12) as i64)),
        }
    }

    fn settings(&self, random: &mut Random) -> SessionSettings {
        let number = |random: &mut Random| (random.below(2) == 0).then(|| random.below(9) as u16);
        SessionSettings {
            revision: random.below(9) as i64,
            last_n: number(random),
            loudest_n: number(random),
            codecs: CodecName::ALL[..random.below(3)].to_vec(),
            bitrates: Bitrates {
                max_bps: (random.below(2) == 0).then(|| 50_000 + random.below(9) as u64),
                ..Bitrates::UNSET
            },
        }
    }

    fn session(&self, id: SessionId, random: &mut Random) -> Session {
        Session { id, command_id: CommandId::from_uuid(random.uuid()), ..session() }
    }

    fn rating(
        &self,
        session_id: SessionId,
        participant_id: ParticipantId,
        endpoint: EndpointId,
        random: &mut Random,
    ) -> Rating {
        let mut rating = Rating { session_id, participant_id, ..rating() };
        (rating.stars, rating.at) = (1 + random.below(5) as u8, UnixMillis(random.below(4) as i64));
        rating.comment = ["", "$stars", "a.b"].get(random.below(4)).map(|comment| (*comment).to_owned());
        rating.network = rating.network.filter(|_| random.below(2) == 0);
        rating.network.iter_mut().for_each(|network| network.endpoint_id = endpoint);
        rating
    }

    fn participant(&self, id: ParticipantId, random: &mut Random) -> Participant {
        let on = random.one_of(&self.pipelines);
        let endpoint = Endpoint {
            id: *random.one_of(&self.endpoints),
            pipeline_id: on.id,
            worker_id: on.worker_id,
            state: EndpointState::New,
        };
        Participant {
            id,
            command_id: self.command(random),
            endpoint: (random.below(5) > 0).then_some(endpoint),
            tracks: self.tracks(random),
            token_issued_at: (random.below(2) == 0).then(|| UnixMillis(random.below(5) as i64)),
            ..participant(["a", "$b", "c.d", ""][random.below(4)], on)
        }
    }

    /// One that may have been done, or a new one.
    fn command(&self, random: &mut Random) -> CommandId {
        if random.below(3) == 0 {
            *random.one_of(&self.commands)
        } else {
            CommandId::from_uuid(random.uuid())
        }
    }

    /// Some of the tracks, each at most once.
    fn tracks(&self, random: &mut Random) -> Vec<Track> {
        self.tracks.iter().filter(|_| random.below(2) == 0).cloned().collect()
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): all that a reproducible sequence needs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.next(), self.next())
    }
}
