//! How clients get into rooms: each kind of server has its own way; what comes out is the same.

mod janus;
mod switchyard;
mod whip;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::task::AbortHandle;

use crate::client::Shared;
use crate::engine::Engine;
use crate::peer::{Media, Peer, Place};

pub use janus::Janus;
pub use switchyard::Switchyard;
pub use whip::Whip;

/// Why something could not be done, in words for the person at the terminal.
pub type Failure = String;

fn failure(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}

/// What a client does in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Only sends.
    Publisher,
    /// Only receives.
    Subscriber,
    /// Both.
    Party,
}

/// A room on the server.
pub struct Room {
    pub number: u32,
    /// Clients that get what a publisher sends …
    pub receivers_of_publishers: Arc<AtomicU32>,
    /// … and what a party sends.
    pub receivers_of_parties: Arc<AtomicU32>,
    /// Clients that send here, when all have joined.
    pub senders: u32,
    handle: Handle,
}

enum Handle {
    Switchyard(switchyard::Session),
    Janus(janus::Room),
    Whip(whip::Room),
}

/// A client in its room. It leaves when this is dropped.
pub struct Joined {
    /// When its join began, as [`crate::socket::wall_ns`].
    pub started: u64,
    pub sends: Option<Arc<Shared>>,
    pub receives: Vec<Arc<Shared>>,
    tasks: Vec<AbortHandle>,
    peers: Vec<Arc<tokio::sync::Mutex<Peer>>>,
}

impl Joined {
    fn new(started: u64) -> Self {
        Self { started, sends: None, receives: Vec::new(), tasks: Vec::new(), peers: Vec::new() }
    }

    fn keep(&mut self, peer: Peer) -> Arc<tokio::sync::Mutex<Peer>> {
        let peer = Arc::new(tokio::sync::Mutex::new(peer));
        self.peers.push(Arc::clone(&peer));
        peer
    }

    /// Everything it has: connected, and media on every stream it should get.
    pub fn is_complete(&self) -> bool {
        self.sends.as_ref().is_none_or(|it| it.connected_at.load(Ordering::Relaxed) > 0)
            && self.receives.iter().all(|it| it.all_media_at.load(Ordering::Relaxed) > 0)
    }

    pub fn failed(&self) -> Option<&'static str> {
        self.sends.iter().chain(&self.receives).find_map(|it| it.failed.get().copied())
    }

    /// From the start of the join to the first packet, in ns.
    pub fn first_media(&self) -> Option<u64> {
        let first = self.receives.iter().map(|it| it.first_media_at.load(Ordering::Relaxed));
        first.filter(|at| *at > 0).min().map(|at| at.saturating_sub(self.started))
    }

    /// From the start of the join to a packet on every stream, in ns.
    pub fn all_media(&self) -> Option<u64> {
        let all: Vec<u64> = self.receives.iter().map(|it| it.all_media_at.load(Ordering::Relaxed)).collect();
        let last = all.iter().copied().max()?;
        (!all.contains(&0)).then(|| last.saturating_sub(self.started))
    }

    /// From the start of the join to a connection with keys, in ns.
    pub fn connected(&self) -> Option<u64> {
        let all = self.sends.iter().chain(&self.receives).map(|it| it.connected_at.load(Ordering::Relaxed));
        all.filter(|at| *at > 0).min().map(|at| at.saturating_sub(self.started))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What all clients of a run have in common.
#[derive(Clone)]
pub struct Clients {
    pub engine: Arc<Engine>,
    pub address: Ipv4Addr,
    pub media: Media,
}

impl Clients {
    fn peer(&self, room: &Room, role: Role, group: usize, expected_streams: u32) -> Result<Peer, Failure> {
        let receivers = match role {
            Role::Party => &room.receivers_of_parties,
            _ => &room.receivers_of_publishers,
        };
        let place = Place { room: room.number, group, receivers: Arc::clone(receivers), expected_streams };
        Peer::open(&self.engine, self.address, place, self.media.clone())
            .map_err(|error| format!("a client's socket: {error}"))
    }

    /// Streams that a client gets when everybody is there.
    fn expected_streams(&self, room: &Room, role: Role) -> u32 {
        let senders = match role {
            Role::Publisher => 0,
            Role::Subscriber => room.senders,
            Role::Party => room.senders.saturating_sub(1),
        };
        senders * self.media.tracks()
    }
}

/// The server under load.
pub enum Server {
    Switchyard(Switchyard),
    Janus(Janus),
    Whip(Whip),
}

impl Server {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Switchyard(_) => "switchyard",
            Self::Janus(_) => "janus",
            Self::Whip(_) => "whip",
        }
    }

    /// Makes a room in which `senders` clients will send.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn create_room(&self, number: u32, senders: u32) -> Result<Room, Failure> {
        let handle = match self {
            Self::Switchyard(it) => Handle::Switchyard(it.create_session().await?),
            Self::Janus(it) => Handle::Janus(it.create_room(senders).await?),
            Self::Whip(_) => Handle::Whip(whip::Room::default()),
        };
        Ok(Room {
            number,
            receivers_of_publishers: Arc::default(),
            receivers_of_parties: Arc::default(),
            senders,
            handle,
        })
    }

    /// Brings a client into a room.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn join(
        &self,
        clients: &Clients,
        room: &Room,
        role: Role,
        group: usize,
    ) -> Result<Joined, Failure> {
        match (self, &room.handle) {
            (Self::Switchyard(it), Handle::Switchyard(session)) => {
                it.join(clients, room, session, role, group).await
            }
            (Self::Janus(it), Handle::Janus(handle)) => it.join(clients, room, handle, role, group).await,
            (Self::Whip(it), Handle::Whip(handle)) => it.join(clients, room, handle, role, group).await,
            _ => Err("the room is another server's".to_owned()),
        }
    }

    /// Ends a room with everyone in it.
    pub async fn close_room(&self, room: &Room) {
        match (self, &room.handle) {
            (Self::Switchyard(it), Handle::Switchyard(session)) => it.close_session(session).await,
            (Self::Janus(it), Handle::Janus(handle)) => it.destroy_room(handle).await,
            (Self::Whip(it), Handle::Whip(handle)) => it.close(handle).await,
            _ => {}
        }
    }
}
