//! Participants that follow their session to another worker, and are heard all the while.

use std::sync::Arc;
use std::time::Duration;

use crate::deployment::Room;
use crate::flow::Flow;
use crate::media::Kind;
use crate::polling::{JoinOptions, PollingClient};

/// A participant that follows its session: it plays from both connections while it moves.
pub struct Mover {
    options: JoinOptions,
    pub flow: Arc<Flow>,
    pub now: PollingClient,
    /// How often an earlier connection was told that its session was interrupted.
    interruptions: usize,
}

impl Mover {
    pub async fn join(room: &Room, name: &str) -> Self {
        Self::join_as(room, JoinOptions::publishing(name)).await
    }

    /// # Panics
    /// When the join is refused.
    pub async fn join_as(room: &Room, options: JoinOptions) -> Self {
        let flow = Arc::clone(&options.flow);
        let now = room.join_as(options.clone()).await;
        Self { options, flow, now, interruptions: 0 }
    }

    /// Whether it has been asked to move, and has not yet.
    pub fn is_asked(&self) -> bool {
        self.now
            .events_of("session.moving")
            .iter()
            .any(|data| data["epoch"].as_i64() > Some(self.now.epoch()))
    }

    /// Waits to be asked to move, joins again beside the old connection, and gives that one back.
    ///
    /// # Panics
    /// When it is not asked to move, or cannot join.
    pub async fn follow(&mut self, room: &Room) -> PollingClient {
        let known = Some(self.now.epoch());
        self.now.event("session.moving", |data| data["epoch"].as_i64() > known).await;
        self.join_again(room).await
    }

    /// Joins again under the same id, and gives the old connection back.
    async fn join_again(&mut self, room: &Room) -> PollingClient {
        let participant_id = Some(self.now.participant_id().to_owned());
        let options = JoinOptions { participant_id, ..self.options.clone() };
        let new = PollingClient::join(&room.http, &room.id, &self.now.token, options).await;
        let old = std::mem::replace(&mut self.now, new.expect("to join again"));
        self.interruptions += old.events_of("session.interrupted").len();
        old
    }

    /// How often it was told that its session was interrupted.
    pub fn interruptions(&self) -> usize {
        self.interruptions + self.now.events_of("session.interrupted").len()
    }

    /// Waits until it is told that its session was interrupted, and joins again.
    ///
    /// # Panics
    /// When it is not told, or cannot join.
    pub async fn recover(&mut self, room: &Room) {
        let known = Some(self.now.epoch());
        self.now.event("session.interrupted", |data| data["epoch"].as_i64() > known).await;
        self.join_again(room).await.vanish().await;
    }
}

/// Waits until everyone receives the audio of everyone else.
pub async fn all_hear_each_other(movers: &[Mover]) {
    for one in movers {
        for other in movers.iter().filter(|other| other.now.participant_id() != one.now.participant_id()) {
            one.now.receives(other.now.participant_id(), Kind::Audio).await;
        }
    }
}

/// Moves everyone: the new connections carry everything before the old ones close.
pub async fn follow_all(room: &Room, movers: &mut [Mover]) {
    let old: Vec<PollingClient> =
        futures::future::join_all(movers.iter_mut().map(|mover| mover.follow(room))).await;
    all_hear_each_other(movers).await;
    for client in old {
        client.vanish().await;
    }
}

/// In anybody's audio, since the flows were reset.
///
/// # Panics
/// With fewer than two who were heard.
pub fn longest_silence(movers: &[Mover]) -> Duration {
    let heard = movers.iter().flat_map(|one| {
        let others = movers.iter().filter(|other| other.now.participant_id() != one.now.participant_id());
        others.map(|other| {
            one.flow.longest_silence(other.now.participant_id(), Kind::Audio).expect("was heard")
        })
    });
    heard.max().expect("at least two participants")
}
