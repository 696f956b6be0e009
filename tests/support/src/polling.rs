//! A participant that uses nothing but HTTP requests, long polls among them, and a WebRTC connection.
//!
//! It follows docs/API.md to the letter, as an application without our SDK would. Consecutive requests go to
//! different API instances when there are several.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use webrtc::peer_connection::{RTCIceCandidateInit, RTCPeerConnectionState};

use crate::channels::Channels;
use crate::deployment::text;
use crate::eventually::{eventually, patience};
use crate::flow::Flow;
use crate::http::{Http, Response, try_send};
use crate::media::Kind;
use crate::peer::{Failure, Peer, RTCIceServer};
use crate::relay::{Relay, through_relay};

/// What a join asks for.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    pub name: String,
    /// To come back as a known participant, with a token that allows it.
    pub participant_id: Option<String>,
    pub publish: Vec<Kind>,
    /// Where arriving packets are noted besides.
    pub flow: Arc<Flow>,
    /// From where its media is sent.
    pub address: IpAddr,
    /// The connection takes a path that can be cut; one that restarts ICE later takes the direct one.
    pub relayed: bool,
    /// The connection goes by this TURN server or not at all.
    pub turn: Option<RTCIceServer>,
    /// With both data channels.
    pub channels: bool,
    /// It knows H.264 besides VP8, and its camera sends that.
    pub h264: bool,
    /// Further members of the join's body.
    pub also: Value,
    /// What fails for want of an API instance, of broker or store is tried again; otherwise it is an error.
    pub patient: bool,
}

impl JoinOptions {
    pub fn publishing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            participant_id: None,
            publish: vec![Kind::Audio, Kind::Video],
            flow: Arc::default(),
            address: Ipv4Addr::LOCALHOST.into(),
            relayed: false,
            turn: None,
            channels: false,
            h264: false,
            also: json!({}),
            patient: false,
        }
    }

    pub fn watching(name: &str) -> Self {
        Self { publish: Vec::new(), ..Self::publishing(name) }
    }
}

/// One line of what the server offers: which m-line carries which track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    pub mid: String,
    pub track_id: String,
    pub participant_id: String,
    pub kind: String,
}

/// What the event loop and the test share.
struct Shared {
    relay: Option<Relay>,
    patient: bool,
    http: Http,
    peer: Peer,
    channels: Option<Channels>,
    path: String,
    session_id: String,
    participant_id: String,
    endpoint_id: String,
    destination: String,
    epoch: i64,
    /// Completed negotiations. Held while one is under way, so that they come one after the other.
    revision: tokio::sync::Mutex<u64>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    events: Vec<Value>,
    /// Ids, to drop what is delivered again.
    ids: HashSet<String>,
    subscribed: Vec<Subscribed>,
    own_tracks: Vec<Value>,
    offers: usize,
    /// Polls so far, and how the last one was answered.
    polls: usize,
    last_poll: String,
    /// With which code the events ended.
    ended: Option<String>,
    /// Whatever must not happen to a client that keeps to the rules.
    errors: Vec<String>,
}

/// A participant of a session. Leaves without a word when dropped.
pub struct PollingClient {
    shared: Arc<Shared>,
    pub token: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Seen {
    /// For failures: how reading the events goes.
    fn polling(&self) -> String {
        format!("{} polls, the last one gave {}", self.polls, self.last_poll)
    }
}

impl Drop for PollingClient {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl PollingClient {
    /// Joins with a join token, or again with a participant token.
    pub async fn join(
        http: &Http,
        session_id: &str,
        token: &str,
        options: JoinOptions,
    ) -> Result<Self, Failure> {
        let (peer, candidates) =
            Peer::noting(options.address, Arc::clone(&options.flow), options.h264, options.turn.clone())
                .await?;
        for kind in &options.publish {
            peer.add(*kind).await?;
        }
        let channels = match options.channels {
            true => Some(peer.open_channels().await?),
            false => None,
        };
        let mut body = options.also.clone();
        body["name"] = json!(options.name);
        if let Some(id) = &options.participant_id {
            body["participant_id"] = json!(id);
        }
        let offer = if options.publish.is_empty() && !options.channels {
            body["server_offers"] = json!(true);
            None
        } else {
            let (offer, tracks) = peer.offer(false).await?;
            body["offer"] = json!({"sdp": offer.sdp, "tracks": tracks});
            Some(offer)
        };
        let path = format!("/v1/sessions/{session_id}/participants");
        let reply = post(&http.with_token(token), options.patient, &path, &body).await?;
        if reply.status != 201 {
            return Err(format!("{reply:?}"));
        }
        let joined = reply.body;
        let (mut revision, mut relay) = (0, None);
        if let Some(offer) = offer {
            let answer = &joined["answer"];
            let mut sdp = text(&answer["sdp"]);
            if options.relayed {
                let (path, redirected) = through_relay(&sdp).await?;
                relay = Some(path);
                sdp = redirected;
            }
            peer.accepted(offer, &sdp).await?;
            revision = answer["revision"].as_u64().ok_or("the answer has a revision")?;
        }
        let participant_id = text(&joined["participant"]["id"]);
        let token = text(&joined["token"]);
        let shared = Arc::new(Shared {
            relay,
            patient: options.patient,
            http: http.with_token(&token),
            peer,
            channels,
            path: format!("{path}/{participant_id}"),
            session_id: session_id.to_owned(),
            participant_id,
            endpoint_id: text(&joined["endpoint_id"]),
            destination: text(&joined["destination"]),
            epoch: joined["epoch"].as_i64().ok_or("a join tells the session's epoch")?,
            revision: tokio::sync::Mutex::new(revision),
            seen: Mutex::new(Seen {
                own_tracks: joined["tracks"].as_array().cloned().unwrap_or_default(),
                ..Seen::default()
            }),
        });
        let tasks = vec![
            tokio::spawn(send_candidates(Arc::clone(&shared), candidates)),
            tokio::spawn(read_events(Arc::clone(&shared))),
        ];
        Ok(Self { shared, token, tasks })
    }

    pub fn participant_id(&self) -> &str {
        &self.shared.participant_id
    }

    pub fn endpoint_id(&self) -> &str {
        &self.shared.endpoint_id
    }

    pub fn destination(&self) -> &str {
        &self.shared.destination
    }

    /// The session's epoch when it joined: moves and interruptions of a later one are its own.
    pub fn epoch(&self) -> i64 {
        self.shared.epoch
    }

    pub fn session_id(&self) -> &str {
        &self.shared.session_id
    }

    /// The path of this participant.
    pub fn path(&self) -> &str {
        &self.shared.path
    }

    /// Requests with this participant's token.
    pub fn http(&self) -> &Http {
        &self.shared.http
    }

    /// All events so far, without repeats.
    pub fn events(&self) -> Vec<Value> {
        self.shared.seen().events.clone()
    }

    /// The data of all events of a type so far.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        let seen = self.shared.seen();
        seen.events.iter().filter(|event| event["type"] == kind).map(|event| event["data"].clone()).collect()
    }

    /// Everything the server sends to this participant.
    pub fn subscribed(&self) -> Vec<Subscribed> {
        self.shared.seen().subscribed.clone()
    }

    /// This participant's published tracks as the server knows them.
    pub fn own_tracks(&self) -> Vec<Value> {
        self.shared.seen().own_tracks.clone()
    }

    /// The id of a published track.
    ///
    /// # Panics
    /// When no track of this kind is published.
    pub fn own_track(&self, kind: Kind) -> String {
        let tracks = self.own_tracks();
        let track = tracks.iter().find(|track| track["kind"] == kind.as_str());
        text(&track.unwrap_or_else(|| panic!("no {} among {tracks:?}", kind.as_str()))["id"])
    }

    /// Offers of the server so far.
    pub fn offers(&self) -> usize {
        self.shared.seen().offers
    }

    /// With which code the reading of events ended, once it has.
    pub fn ended(&self) -> Option<String> {
        self.shared.seen().ended.clone()
    }

    /// What went wrong although this client kept to the rules.
    pub fn errors(&self) -> Vec<String> {
        self.shared.seen().errors.clone()
    }

    pub fn connected(&self) -> bool {
        self.shared.peer.state() == RTCPeerConnectionState::Connected
    }

    /// Packets received so far of a track.
    pub async fn received(&self, track_id: &str) -> u64 {
        let mid =
            self.subscribed().iter().find(|line| line.track_id == track_id).map(|line| line.mid.clone());
        self.shared.peer.received(track_id, mid.as_deref()).await
    }

    /// Waits until packets of each kind from the other participant keep coming.
    pub async fn hears(&self, other: &PollingClient, kinds: &[Kind]) {
        for kind in kinds {
            self.receives(other.participant_id(), *kind).await;
        }
    }

    /// Waits until 10 more packets of that participant's track have come.
    pub async fn receives(&self, participant_id: &str, kind: Kind) {
        let mut start = None;
        let what = format!("{} receives {} of {participant_id}", self.participant_id(), kind.as_str());
        let start = &mut start;
        let mut looked = tokio::time::Instant::now();
        let bound = patience(20.0);
        let began = looked;
        loop {
            let line = self
                .subscribed()
                .into_iter()
                .find(|line| line.participant_id == participant_id && line.kind == kind.as_str());
            let seen = match &line {
                Some(line) => Some((line.track_id.clone(), self.received(&line.track_id).await)),
                None => None,
            };
            match (&seen, &start) {
                (Some((track, count)), Some((started, from))) if track == started && *count >= from + 10 => {
                    return;
                }
                (Some((track, _)), Some((started, _))) if track == started => {}
                _ => *start = seen.clone(),
            }
            assert!(
                began.elapsed() < bound,
                "not within {bound:?}: {what}: state {}, at {seen:?} since {start:?}, subscribed {:?}, counts {:?}, errors {:?}",
                self.shared.peer.state(),
                self.subscribed(),
                self.shared.peer.counts(),
                self.errors(),
            );
            looked += Duration::from_millis(20);
            tokio::time::sleep_until(looked).await;
        }
    }

    /// Watches for a second: packets of the track that come in that time.
    pub async fn count_for_a_second(&self, track_id: &str) -> u64 {
        let before = self.received(track_id).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.received(track_id).await - before
    }

    /// Says something on one of its data channels, once that is open.
    ///
    /// # Panics
    /// When it did not join with `channels`.
    pub async fn say(&self, label: &str, message: &Value) {
        self.shared.channels.as_ref().expect("it joined with channels").say(label, message).await;
    }

    /// What it heard on one of its data channels so far.
    pub fn heard(&self, label: &str) -> Vec<Value> {
        self.shared.channels.as_ref().map(|channels| channels.heard(label)).unwrap_or_default()
    }

    /// Waits for an event of a type whose data satisfies the condition, and gives the data.
    pub async fn event(&self, kind: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{} gets {kind}", self.participant_id()), || {
            let found = self.events_of(kind).into_iter().find(|data| condition(data));
            let found = found.ok_or_else(|| {
                let kinds: Vec<String> =
                    self.events().iter().map(|event| event["type"].to_string()).collect();
                let polling = self.shared.seen().polling();
                format!("got {}; {polling}; errors {:?}", kinds.join(" "), self.errors())
            });
            async move { found }
        })
        .await
    }

    /// Publishes a generated track.
    pub async fn publish(&self, kind: Kind) -> Result<(), Failure> {
        self.shared.peer.add(kind).await?;
        self.negotiate(false).await
    }

    /// Unpublishes the tracks of this kind.
    pub async fn unpublish(&self, kind: Kind) -> Result<(), Failure> {
        self.shared.peer.remove(kind).await?;
        self.negotiate(false).await
    }

    /// Cuts the path that it joined over.
    ///
    /// # Panics
    /// When it did not join `relayed`.
    pub fn cut(&self) {
        self.shared.relay.as_ref().expect("it joined over a relay").cut();
    }

    pub async fn restart_ice(&self) -> Result<(), Failure> {
        self.negotiate(true).await
    }

    /// Offers until the server accepts. After a collision the server's offer comes as an event, and has to be
    /// answered before the next try.
    pub async fn negotiate(&self, ice_restart: bool) -> Result<(), Failure> {
        let shared = &self.shared;
        for _ in 0..100 {
            let mut revision = shared.revision.lock().await;
            let (offer, tracks) = shared.peer.offer(ice_restart).await?;
            let body = json!({
                "destination": shared.destination, "sdp": offer.sdp, "revision": *revision + 1, "tracks": tracks,
            });
            let reply = shared.http.post(&format!("{}/offer", shared.path), &body).await;
            match (reply.status, reply.code()) {
                (200, _) => {
                    shared.peer.accepted(offer, &text(&reply.body["sdp"])).await?;
                    *revision = reply.body["revision"].as_u64().ok_or("the answer has a revision")?;
                    shared.seen().own_tracks = reply.body["tracks"].as_array().cloned().unwrap_or_default();
                    return Ok(());
                }
                (409, "offer_collision") => {
                    let before = *revision;
                    drop(revision);
                    eventually("the server's offer after a collision", || async {
                        let now = *shared.revision.lock().await;
                        if now > before {
                            Ok(())
                        } else {
                            Err(format!("still at revision {now}; {:?}", self.errors()))
                        }
                    })
                    .await;
                }
                _ => return Err(format!("{reply:?}")),
            }
        }
        Err("a hundred collisions in a row".to_owned())
    }

    /// How loud its voice says it is from now on: dB below full scale; 127 is silence, as in the beginning.
    pub fn set_level(&self, level: u8) {
        self.shared.peer.set_level(level);
    }

    /// Mutes or unmutes one of its tracks at the server. The generated media goes on: that the others get none is
    /// the server's doing.
    pub async fn set_muted(&self, kind: Kind, muted: bool) -> Response {
        let body = json!({"destination": self.shared.destination, "muted": muted});
        self.shared.http.patch(&format!("{}/tracks/{}", self.shared.path, self.own_track(kind)), &body).await
    }

    /// Leaves as one should.
    pub async fn leave(self) -> Response {
        let reply = self.shared.http.delete(&self.shared.path).await;
        self.shared.peer.close().await;
        reply
    }

    /// Goes away without a word: no request, no more packets.
    pub async fn vanish(self) {
        self.shared.peer.close().await;
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it writes down what it saw")
    }

    fn wrong(&self, what: String) {
        self.seen().errors.push(what);
    }

    async fn handle(&self, event: Value) {
        if !self.seen().ids.insert(text(&event["id"])) {
            return;
        }
        let data = &event["data"];
        // What is left over from an earlier join is not for us.
        let ours = data["endpoint_id"].as_str().is_none_or(|id| id == self.endpoint_id);
        match event["type"].as_str() {
            Some("offer") if ours => {
                if let Err(error) = self.handle_offer(data).await {
                    self.wrong(format!("the server's offer {}: {error}", data["revision"]));
                }
            }
            Some("candidates") if ours => {
                for candidate in data["candidates"].as_array().into_iter().flatten() {
                    if let Err(error) = self.handle_candidate(candidate).await {
                        self.wrong(format!("the server's candidate {candidate}: {error}"));
                    }
                }
            }
            _ => {}
        }
        self.seen().events.push(event);
    }

    async fn handle_offer(&self, data: &Value) -> Result<(), Failure> {
        let mut completed = self.revision.lock().await;
        let revision = data["revision"].as_u64().ok_or("it has no revision")?;
        if revision != *completed + 1 {
            return Err(format!("{revision} does not follow {}", *completed));
        }
        let sdp = self.peer.answer(&text(&data["sdp"])).await?;
        let body = json!({"destination": self.destination, "sdp": sdp, "revision": revision});
        let reply = post(&self.http, self.patient, &format!("{}/answer", self.path), &body).await?;
        if reply.status != 204 {
            return Err(format!("the answer was refused: {reply:?}"));
        }
        *completed = revision;
        let mut seen = self.seen();
        seen.offers += 1;
        seen.subscribed = data["tracks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|line| Subscribed {
                mid: text(&line["mid"]),
                track_id: text(&line["track_id"]),
                participant_id: text(&line["participant_id"]),
                kind: text(&line["kind"]),
            })
            .collect();
        Ok(())
    }

    async fn handle_candidate(&self, candidate: &Value) -> Result<(), Failure> {
        let line = candidate["candidate"].as_str().ok_or("it has no candidate line")?;
        if line.is_empty() {
            return Ok(());
        }
        self.peer
            .add_candidate(RTCIceCandidateInit {
                candidate: line.to_owned(),
                sdp_mid: candidate["sdpMid"].as_str().map(str::to_owned),
                sdp_mline_index: candidate["sdpMLineIndex"]
                    .as_u64()
                    .and_then(|index| u16::try_from(index).ok()),
                username_fragment: candidate["usernameFragment"].as_str().map(str::to_owned),
                url: None,
            })
            .await
    }
}

/// Once, or as often as it takes.
async fn post(http: &Http, patient: bool, path: &str, body: &Value) -> Result<Response, Failure> {
    if patient {
        return http.insist(Method::POST, path, body).await;
    }
    try_send(http.request(Method::POST, path).json(body)).await.map_err(|error| format!("{error:?}"))
}

/// Sends our candidates, several in one request when they come together.
async fn send_candidates(shared: Arc<Shared>, mut found: mpsc::UnboundedReceiver<RTCIceCandidateInit>) {
    while let Some(first) = found.recv().await {
        let mut batch = vec![first];
        while let Ok(next) = found.try_recv() {
            batch.push(next);
        }
        let candidates: Vec<Value> = batch
            .iter()
            .map(|candidate| json!({"candidate": candidate.candidate, "sdpMLineIndex": 0}))
            .collect();
        let body = json!({"destination": shared.destination, "candidates": candidates});
        match post(&shared.http, shared.patient, &format!("{}/candidates", shared.path), &body).await {
            Ok(reply) if reply.status == 204 || reply.code() == "endpoint_gone" => {}
            refused => shared.wrong(format!("candidates were refused: {refused:?}")),
        }
    }
}

/// Polls until the endpoint is gone.
async fn read_events(shared: Arc<Shared>) {
    let mut cursor: Option<String> = None;
    loop {
        let mut path = format!("{}/events?endpoint={}&wait=20", shared.path, shared.endpoint_id);
        if let Some(cursor) = &cursor {
            path.push_str(&format!("&cursor={cursor}"));
        }
        let asked = Instant::now();
        let reply = match try_send(shared.http.request(Method::GET, &path)).await {
            Ok(reply) => {
                let mut seen = shared.seen();
                seen.polls += 1;
                seen.last_poll = format!("{reply:?} after {:?}", asked.elapsed());
                reply
            }
            Err(error) => {
                if !shared.patient {
                    shared.wrong(format!("a poll failed: {error}"));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        match reply.status {
            200 => {}
            503 => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            // Left, removed or closed, or replaced by a later join.
            _ if matches!(reply.status, 404 | 410) || reply.code() == "token_revoked" => {
                shared.seen().ended = Some(reply.code().to_owned());
                return;
            }
            _ => {
                shared.wrong(format!("a poll was refused: {reply:?}"));
                return;
            }
        }
        for event in reply.body["events"].as_array().cloned().unwrap_or_default() {
            shared.handle(event).await;
        }
        if let Some(next) = reply.body["cursor"].as_str() {
            cursor = Some(next.to_owned());
        }
    }
}
