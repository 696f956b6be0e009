//! A client as `docs/API.md` wants one: it speaks to whichever API instance, repeats what got no answer with the same
//! `Idempotency-Key`, polls its endpoint's events, and joins again when it is told that its endpoint is over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::message::TrackDescription;
use common::model::{CommandId, EndpointId, EventId, ParticipantId, SessionId, Track, TrackId, TrackSource};
use common::token::{Claims, VideoGrants};
use rest_api::ApiState;
use rest_api::auth::Caller;
use rest_api::delivery::Recipient;
use rest_api::delivery::poll::{self, Poll};
use rest_api::error::{ApiError, ApiResult, Code};
use rest_api::service::endpoints::{self, ChangeTrack, OfferBody, SendAnswer, SendOffer, Whose};
use rest_api::service::participants::{self, JoinSession};
use rest_api::service::sessions::{self, CreateSession};
use rest_api::service::{CommandContext, Completed, Outcome};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::media::Peer;
use crate::servers::{KEY, Servers};
use crate::world::World;

/// How long a request may be without an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a result that was promised as an event may take, before the request is repeated.
const EVENT_PATIENCE: Duration = Duration::from_secs(3);
/// Tries of one request before the client gives up on it.
const TRIES: usize = 12;

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// On its way in or out.
    Busy,
    In(EndpointId),
    Out,
    /// The session is over.
    Ended,
}

pub struct Client {
    pub name: String,
    pub session: SessionId,
    pub participant: ParticipantId,
    world: Arc<World>,
    servers: Arc<Servers>,
    pub status: Mutex<Status>,
    /// Others in the session, for a moderator.
    pub others: Vec<ParticipantId>,
}

/// What the reader of an endpoint's events says to its client.
#[derive(Debug)]
enum Signal {
    /// Join again, whatever the reason.
    Rejoin(EndpointId),
    Ended,
    Completed(CommandId, u16, serde_json::Value),
}

/// An endpoint that the client has joined with.
struct Joined {
    endpoint: EndpointId,
    epoch: i64,
    destination: String,
    tracks: Vec<TrackId>,
    muted: bool,
    screen: Option<TrackId>,
    reader: JoinHandle<()>,
    signals: mpsc::UnboundedSender<Signal>,
    /// Whether it stays at the end is decided.
    settled: bool,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What a join answers, directly or as an event.
#[derive(Deserialize)]
struct JoinAnswer {
    epoch: i64,
    destination: String,
}

/// How a request ended for good.
enum Answer<T> {
    Done(T),
    /// The result came as an event.
    Told(serde_json::Value),
    Refused(Code),
    /// Nobody knows.
    Unknown,
}

/// What a client got for one try.
enum Tried<T> {
    Answered(ApiResult<T>),
    /// The connection broke, or there was none.
    Lost,
}

#[derive(Debug, Deserialize)]
struct Event {
    id: EventId,
    #[serde(rename = "type")]
    kind: String,
    data: serde_json::Value,
}

/// Why a stay is over.
enum Over {
    Rejoin,
    Left,
    Ended,
}

impl Client {
    pub fn new(
        world: &Arc<World>,
        servers: &Arc<Servers>,
        name: String,
        session: SessionId,
        participant: ParticipantId,
        others: Vec<ParticipantId>,
    ) -> Arc<Self> {
        let (world, servers) = (world.clone(), servers.clone());
        Arc::new(Self {
            name,
            session,
            participant,
            world,
            servers,
            status: Mutex::new(Status::Busy),
            others,
        })
    }

    pub fn status(&self) -> Status {
        *self.status.lock().unwrap()
    }

    pub fn queue(&self, endpoint: EndpointId) -> String {
        self.recipient(endpoint).queue_name()
    }

    fn recipient(&self, endpoint: EndpointId) -> Recipient {
        Recipient { session: self.session, participant: self.participant, endpoint }
    }

    fn set(&self, status: Status) {
        self.note(|| format!("{status:?}"));
        *self.status.lock().unwrap() = status;
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.world.note(&self.name, what);
    }

    async fn sleep(&self, low: u64, high: u64) {
        let time = self.world.random().millis(low, high);
        tokio::time::sleep(time).await;
    }

    fn caller(&self) -> Caller {
        let mut claims =
            Claims::expiring_in(KEY, Duration::from_secs(3_600), VideoGrants::join(self.session));
        claims.sub = Some(self.participant);
        Caller::Client { claims: Box::new(claims) }
    }

    /// From its first request until the session ends.
    pub async fn live(self: Arc<Self>) {
        self.sleep(0, 800).await;
        if !self.create().await {
            return self.set(Status::Ended);
        }
        let mut before: Option<Joined> = None;
        loop {
            let (signals, received) = mpsc::unbounded_channel();
            let mut told = Told { signals: received, kept: VecDeque::new() };
            let Some(mut joined) = self.join(&signals, &mut told).await else {
                return self.set(Status::Ended);
            };
            if let Some(before) = before.take() {
                self.let_go(before.endpoint, Peer::Closed);
            }
            self.set(Status::In(joined.endpoint));
            let over = self.stay(&mut joined, &mut told).await;
            match over {
                Over::Ended => return self.set(Status::Ended),
                Over::Rejoin => {
                    self.set(Status::Busy);
                    before = Some(joined);
                    self.sleep(0, 300).await;
                }
                Over::Left => {
                    self.let_go(joined.endpoint, Peer::Closed);
                    drop(joined);
                    self.set(Status::Out);
                    if self.world.is_calm() {
                        return;
                    }
                    self.sleep(0, 2_000).await;
                    if self.world.is_calm() {
                        return;
                    }
                    self.set(Status::Busy);
                }
            }
        }
    }

    fn let_go(&self, endpoint: EndpointId, how: Peer) {
        self.world.peers().set(endpoint, how);
    }

    /// One try of a request at some API instance.
    async fn call<T, Fut>(&self, call: impl FnOnce(ApiState) -> Fut) -> Tried<T>
    where
        T: Send + 'static,
        Fut: Future<Output = ApiResult<T>> + Send + 'static,
    {
        let which = self.world.random().index(self.servers.apis.len());
        let (there, back) = (self.world.delay(), self.world.delay());
        tokio::time::sleep(there).await;
        let Some((process, state)) = self.servers.apis[which].serving() else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Tried::Lost;
        };
        let mut request = Request(process.run(call(state)));
        let breaks = self.world.befalls(self.world.weather.broken_requests);
        let patience = if breaks { self.world.random().millis(0, 60) } else { PATIENCE };
        match tokio::time::timeout(patience, &mut request.0).await {
            Ok(Ok(answer)) => {
                tokio::time::sleep(back).await;
                Tried::Answered(answer)
            }
            Ok(Err(_)) | Err(_) => Tried::Lost,
        }
    }

    /// A command, repeated with its key until its result is known. `told` is where a result that comes as an event
    /// arrives, when the client reads events.
    async fn command<T, Fut>(
        &self,
        what: &str,
        command_id: CommandId,
        mut told: Option<&mut Told>,
        mut when_promised: impl FnMut(),
        mut send: impl FnMut(ApiState, CommandContext) -> Fut,
    ) -> Answer<T>
    where
        T: Completed,
        Fut: Future<Output = ApiResult<Outcome<T>>> + Send + 'static,
    {
        for _ in 0..TRIES {
            let wait = self.world.random().millis(50, 2_000);
            let context = CommandContext { command_id, traceparent: String::new(), wait };
            self.note(|| format!("{what} {command_id}"));
            match self.call(|state| send(state, context)).await {
                Tried::Answered(Ok(Outcome::Done(result))) => {
                    self.note(|| format!("{what} done"));
                    self.world.ledger().acknowledged += 1;
                    return Answer::Done(result);
                }
                Tried::Answered(Ok(Outcome::Later(_))) => {
                    self.note(|| format!("{what} promised"));
                    when_promised();
                    if let Some(told) = &mut told
                        && let Some((status, result)) = told.completed(command_id).await
                    {
                        self.note(|| format!("{what} told: {status}"));
                        if status < 300 {
                            return Answer::Told(result);
                        }
                        let code =
                            result.get("code").cloned().and_then(|code| serde_json::to_string(&code).ok());
                        match code.as_deref() {
                            Some("\"endpoint_gone\"") => return Answer::Refused(Code::EndpointGone),
                            Some("\"session_closed\"") => return Answer::Refused(Code::SessionClosed),
                            _ => {}
                        }
                    }
                }
                Tried::Answered(Err(error)) if !is_passing(&error) => {
                    self.note(|| format!("{what} refused: {:?}", error.code));
                    return Answer::Refused(error.code);
                }
                Tried::Answered(Err(error)) => self.note(|| format!("{what} put off: {:?}", error.code)),
                Tried::Lost => self.note(|| format!("{what} lost")),
            }
            self.sleep(50, 500).await;
        }
        Answer::Unknown
    }

    /// `false`: it has ended already.
    async fn create(&self) -> bool {
        loop {
            let session = self.session;
            let answer = self
                .command(
                    "create",
                    CommandId::new(),
                    None,
                    || {},
                    move |state, context| async move {
                        let caller = Caller::Backend { key_id: KEY.to_owned() };
                        let wanted = CreateSession { id: Some(session), ..CreateSession::default() };
                        sessions::create(&state, &caller, &context, String::new(), wanted).await
                    },
                )
                .await;
            match answer {
                Answer::Done(_) | Answer::Told(_) => return true,
                Answer::Refused(Code::SessionClosed) => return false,
                Answer::Refused(code) => self.world.violated(format!("create was refused: {code:?}")),
                Answer::Unknown => {}
            }
            self.sleep(100, 500).await;
        }
    }

    /// `None`: the session has ended.
    async fn join(
        self: &Arc<Self>,
        signals: &mpsc::UnboundedSender<Signal>,
        told: &mut Told,
    ) -> Option<Joined> {
        loop {
            let (endpoint, command_id) = (EndpointId::new(), CommandId::new());
            let tracks: Vec<TrackId> = (0..2).map(|_| TrackId::new()).collect();
            self.world.peers().set(endpoint, Peer::There);
            let reader: Mutex<Option<JoinHandle<()>>> = Mutex::default();
            let read = || {
                let mut reader = reader.lock().unwrap();
                if reader.as_ref().is_none_or(JoinHandle::is_finished) {
                    *reader = Some(tokio::spawn(self.clone().read(endpoint, 0, signals.clone())));
                }
            };
            let (caller, session, participant) = (self.caller(), self.session, self.participant);
            let described = descriptions(&tracks, None);
            let send = move |state: ApiState, context: CommandContext| {
                let (caller, tracks) = (caller.clone(), described.clone());
                async move {
                    let wanted = JoinSession {
                        participant_id: Some(participant),
                        endpoint_id: Some(endpoint),
                        name: Some("somebody".to_owned()),
                        server_offers: false,
                        offer: Some(OfferBody { sdp: String::new(), tracks }),
                        ..JoinSession::default()
                    };
                    participants::join(&state, &caller, &context, session, wanted).await
                }
            };
            let what = format!("join with {endpoint}");
            let answer = self.command(&what, command_id, Some(told), read, send).await;
            let answer = match answer {
                Answer::Done(joined) => {
                    Some(JoinAnswer { epoch: joined.epoch, destination: joined.destination })
                }
                Answer::Told(result) => serde_json::from_value(result).ok(),
                Answer::Refused(Code::SessionClosed) => {
                    stop(reader);
                    self.let_go(endpoint, Peer::Closed);
                    return None;
                }
                // Removed since the token was made: the next try has another.
                Answer::Refused(Code::EndpointGone | Code::EndpointConflict | Code::TokenRevoked)
                | Answer::Unknown => None,
                // Its record goes some time after it has ended.
                Answer::Refused(Code::SessionNotFound) => {
                    if !self.world.ledger().ended.contains(&self.session) {
                        self.world.violated(format!("{} is not found, and was not closed", self.session));
                    }
                    stop(reader);
                    return None;
                }
                Answer::Refused(code) => {
                    self.world.violated(format!("a join was refused: {code:?}"));
                    None
                }
            };
            let Some(answer) = answer else {
                stop(reader);
                self.let_go(endpoint, Peer::Closed);
                self.sleep(50, 300).await;
                continue;
            };
            if !self.world.ledger().joins.contains(&command_id) {
                self.world.violated(format!("{command_id} was acknowledged, and nobody joined"));
            }
            for track in &tracks {
                self.world.ledger().muted.insert(*track, false);
            }
            // From here on with the epoch that tells which events concern it.
            stop(reader);
            let reader = tokio::spawn(self.clone().read(endpoint, answer.epoch, signals.clone()));
            return Some(Joined {
                endpoint,
                epoch: answer.epoch,
                destination: answer.destination,
                tracks,
                muted: false,
                screen: None,
                reader,
                signals: signals.clone(),
                settled: false,
            });
        }
    }

    /// Reads an endpoint's events until they end.
    async fn read(self: Arc<Self>, endpoint: EndpointId, epoch: i64, signals: mpsc::UnboundedSender<Signal>) {
        let queue = self.queue(endpoint);
        let mut cursor = self.world.ledger().cursors.get(&queue).copied();
        loop {
            let poll = Poll {
                recipient: self.recipient(endpoint),
                cursor,
                wait: self.world.random().millis(0, 2_500),
                limit: self.world.random().between(1, 20) as usize,
            };
            let page =
                match self.call(move |state| async move { poll::poll(&state.readers, poll).await }).await {
                    Tried::Answered(Ok(page)) => page,
                    Tried::Answered(Err(error)) if error.code == Code::EndpointGone => {
                        self.note(|| format!("poll of {endpoint}: gone"));
                        let _ = signals.send(Signal::Rejoin(endpoint));
                        return;
                    }
                    Tried::Answered(Err(_)) | Tried::Lost => {
                        self.sleep(20, 200).await;
                        continue;
                    }
                };
            cursor = page.cursor;
            if let Some(cursor) = cursor {
                self.world.ledger().cursors.insert(queue.clone(), cursor);
            }
            for event in page.events {
                let event: Event = serde_json::from_str(&event).expect("an event is JSON");
                self.note(|| format!("sees {} {}", event.id, event.kind));
                let violation = self.world.ledger().read(&queue, self.participant, event.id);
                violation.into_iter().for_each(|violation| self.world.violated(violation));
                if let Some(signal) = self.signal_of(&event, endpoint, epoch) {
                    let _ = signals.send(signal);
                }
            }
            self.sleep(0, 100).await;
        }
    }

    fn signal_of(self: &Arc<Self>, event: &Event, endpoint: EndpointId, epoch: i64) -> Option<Signal> {
        let of = |name: &str| event.data.get(name).cloned().unwrap_or_default();
        let later = || of("epoch").as_i64().is_some_and(|told| told > epoch);
        match event.kind.as_str() {
            "session.closed" => Some(Signal::Ended),
            "session.interrupted" if later() => Some(Signal::Rejoin(endpoint)),
            "session.moving" if later() => Some(Signal::Rejoin(endpoint)),
            "endpoint.state" if of("state") == "closed" => Some(Signal::Rejoin(endpoint)),
            "participant.left" if of("participant_id") == self.participant.to_string() => {
                Some(Signal::Rejoin(endpoint))
            }
            "command.completed" => {
                let command = serde_json::from_value(of("command_id")).ok()?;
                Some(Signal::Completed(command, of("status").as_u64()? as u16, of("result")))
            }
            "offer" => {
                let revision = of("revision").as_u64()?;
                tokio::spawn(self.clone().answer(endpoint, revision));
                None
            }
            _ => None,
        }
    }

    async fn answer(self: Arc<Self>, endpoint: EndpointId, revision: u64) {
        let Some(destination) = self.world.ledger().destinations.get(&endpoint).cloned() else { return };
        let (caller, whose) = (self.caller(), self.whose());
        let send = move |state: ApiState, context: CommandContext| {
            let (caller, destination) = (caller.clone(), Some(destination.clone()));
            async move {
                let body = SendAnswer { destination, sdp: String::new(), revision };
                endpoints::answer(&state, &caller, &context, whose, body).await
            }
        };
        let _ = self.command("answer", CommandId::new(), None, || {}, send).await;
    }

    fn whose(&self) -> Whose {
        Whose { session: self.session, participant: self.participant }
    }

    /// Is in the session, and does what people do there.
    async fn stay(self: &Arc<Self>, joined: &mut Joined, told: &mut Told) -> Over {
        self.world.ledger().destinations.insert(joined.endpoint, joined.destination.clone());
        let calm = self.world.calm();
        loop {
            let pause = if calm.is_cancelled() { FOREVER } else { self.world.random().millis(100, 1_500) };
            tokio::select! {
                biased;
                signal = told.next() => match signal {
                    Some(Signal::Ended) | None => return Over::Ended,
                    Some(Signal::Rejoin(endpoint)) if endpoint == joined.endpoint => return Over::Rejoin,
                    Some(_) => {}
                },
                () = calm.cancelled(), if !joined.settled => {
                    joined.settled = true;
                    if self.world.random().per_mille(200) {
                        return self.leave().await;
                    }
                }
                () = tokio::time::sleep(pause) => {
                    if let Some(over) = self.act(joined, told).await {
                        return over;
                    }
                }
            }
        }
    }

    /// One thing that people do.
    async fn act(self: &Arc<Self>, joined: &mut Joined, told: &mut Told) -> Option<Over> {
        let dice = self.world.random().below(100);
        match dice {
            0..40 => self.mute(joined, told).await,
            40..55 => self.offer(joined, told).await,
            55..63 => Some(self.leave().await),
            // From elsewhere, without a word to the old endpoint.
            63..72 => Some(Over::Rejoin),
            72..82 => self.vanish(joined).await,
            82..86 => self.remove_somebody().await,
            _ => None,
        }
    }

    async fn mute(self: &Arc<Self>, joined: &mut Joined, told: &mut Told) -> Option<Over> {
        let (track, muted) = (joined.tracks[0], !joined.muted);
        let known = self.world.ledger().muted.remove(&track);
        let (caller, whose, destination) = (self.caller(), self.whose(), joined.destination.clone());
        let send = move |state: ApiState, context: CommandContext| {
            let (caller, destination) = (caller.clone(), Some(destination.clone()));
            async move {
                let body = ChangeTrack { destination, muted };
                endpoints::change_track(&state, &caller, &context, whose, track, body).await
            }
        };
        let what = format!("mute {track} {muted}");
        match self.command(&what, CommandId::new(), Some(told), || {}, send).await {
            Answer::Done(Track { muted: now, .. }) if now != muted => {
                self.world.violated(format!("{track} should be muted: {muted}, and is not"));
            }
            Answer::Done(_) | Answer::Told(_) => {
                joined.muted = muted;
                if known.is_some() {
                    self.world.ledger().muted.insert(track, muted);
                }
            }
            Answer::Refused(Code::EndpointGone | Code::TokenRevoked) => return Some(Over::Rejoin),
            Answer::Refused(Code::SessionClosed | Code::ParticipantNotFound) => return Some(Over::Rejoin),
            Answer::Refused(code) => self.world.violated(format!("{what} was refused: {code:?}")),
            // Whether it is muted nobody knows.
            Answer::Unknown => return Some(Over::Rejoin),
        }
        None
    }

    /// Shares the screen, or no longer.
    async fn offer(self: &Arc<Self>, joined: &mut Joined, told: &mut Told) -> Option<Over> {
        let screen = joined.screen.map_or_else(|| Some(TrackId::new()), |_| None);
        let (caller, whose, destination) = (self.caller(), self.whose(), joined.destination.clone());
        let tracks = descriptions(&joined.tracks, screen);
        let send = move |state: ApiState, context: CommandContext| {
            let (caller, destination, tracks) = (caller.clone(), Some(destination.clone()), tracks.clone());
            async move {
                let body = SendOffer { destination, sdp: String::new(), revision: None, tracks };
                endpoints::offer(&state, &caller, &context, whose, body).await
            }
        };
        match self.command("offer", CommandId::new(), Some(told), || {}, send).await {
            Answer::Done(_) | Answer::Told(_) => joined.screen = screen,
            Answer::Refused(Code::OfferCollision) => {}
            Answer::Refused(_) | Answer::Unknown => return Some(Over::Rejoin),
        }
        None
    }

    /// Its network is gone for a while, and it comes back to the same endpoint or with another one.
    async fn vanish(self: &Arc<Self>, joined: &mut Joined) -> Option<Over> {
        self.note(|| "vanishes".to_owned());
        self.let_go(joined.endpoint, Peer::Silent);
        joined.reader.abort();
        self.sleep(100, 3_500).await;
        if self.world.random().per_mille(500) {
            self.note(|| "is back".to_owned());
            return Some(Over::Rejoin);
        }
        self.note(|| "is back at the same endpoint".to_owned());
        self.let_go(joined.endpoint, Peer::There);
        let signals = joined.signals.clone();
        joined.reader = tokio::spawn(self.clone().read(joined.endpoint, joined.epoch, signals));
        None
    }

    /// As the application's backend does it.
    async fn remove_somebody(self: &Arc<Self>) -> Option<Over> {
        if self.others.is_empty() {
            return None;
        }
        let whom = self.others[self.world.random().index(self.others.len())];
        let session = self.session;
        let send = move |state: ApiState, context: CommandContext| async move {
            let caller = Caller::Backend { key_id: KEY.to_owned() };
            participants::leave(&state, &caller, &context, session, whom).await
        };
        let _ = self.command(&format!("remove {whom}"), CommandId::new(), None, || {}, send).await;
        None
    }

    async fn leave(self: &Arc<Self>) -> Over {
        self.set(Status::Busy);
        let (caller, session, participant) = (self.caller(), self.session, self.participant);
        loop {
            let caller = caller.clone();
            let send = move |state: ApiState, context: CommandContext| {
                let caller = caller.clone();
                async move { participants::leave(&state, &caller, &context, session, participant).await }
            };
            match self.command("leave", CommandId::new(), None, || {}, send).await {
                Answer::Done(_) | Answer::Told(_) => return Over::Left,
                Answer::Refused(Code::SessionClosed | Code::SessionNotFound) => return Over::Ended,
                Answer::Refused(code) => self.world.violated(format!("leave was refused: {code:?}")),
                Answer::Unknown => {}
            }
            self.sleep(100, 500).await;
        }
    }
}

/// Ends the session, as the application's backend does it.
pub async fn close(client: &Arc<Client>) {
    let (world, session) = (client.world.clone(), client.session);
    world.ledger().may_close.insert(session);
    let send = move |state: ApiState, context: CommandContext| async move {
        let caller = Caller::Backend { key_id: KEY.to_owned() };
        sessions::close(&state, &caller, &context, session).await
    };
    let _ = client.command("close", CommandId::new(), None, || {}, send).await;
}

/// Longer than any schedule.
const FOREVER: Duration = Duration::from_secs(3_600);

/// What the readers of a client's events have said.
struct Told {
    signals: mpsc::UnboundedReceiver<Signal>,
    /// Came while something else was waited for.
    kept: VecDeque<Signal>,
}

impl Told {
    async fn next(&mut self) -> Option<Signal> {
        match self.kept.pop_front() {
            Some(kept) => Some(kept),
            None => self.signals.recv().await,
        }
    }

    /// The result of a command, when it comes as an event.
    async fn completed(&mut self, command_id: CommandId) -> Option<(u16, serde_json::Value)> {
        let until = tokio::time::Instant::now() + EVENT_PATIENCE;
        while let Ok(Some(signal)) = tokio::time::timeout_at(until, self.signals.recv()).await {
            match signal {
                Signal::Completed(id, status, result) if id == command_id => return Some((status, result)),
                // The result of something that was given up.
                Signal::Completed(..) => {}
                other => {
                    self.kept.push_back(other);
                    // The reader has ended, perhaps: there may be no event any more.
                    return None;
                }
            }
        }
        None
    }
}

/// A request under way; dropping it hangs up.
struct Request<T>(JoinHandle<T>);

impl<T> Drop for Request<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn stop(reader: Mutex<Option<JoinHandle<()>>>) {
    if let Some(reader) = reader.into_inner().expect("no panic under this lock") {
        reader.abort();
    }
}

/// Whether the same request may do better in a moment.
fn is_passing(error: &ApiError) -> bool {
    matches!(error.code, Code::Unavailable | Code::Expired | Code::TooManyRequests | Code::Internal)
}

fn descriptions(tracks: &[TrackId], screen: Option<TrackId>) -> Vec<TrackDescription> {
    let own =
        tracks.iter().zip([TrackSource::Microphone, TrackSource::Camera]).map(|(id, source)| (*id, source));
    let all = own.chain(screen.map(|id| (id, TrackSource::Screen)));
    all.enumerate()
        .map(|(mid, (id, source))| TrackDescription {
            mid: mid.to_string(),
            source,
            track_id: Some(id),
            muted: false,
        })
        .collect()
}
