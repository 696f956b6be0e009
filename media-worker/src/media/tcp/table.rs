//! All connections, and how many there may be.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use super::connection::Connection;
use super::neighbourhood;
use crate::media::transport::ConnectionId;

/// Connections that no endpoint knows yet. One more displaces the oldest: a client's first check comes with its first
/// bytes, so those who wait longest are the least likely to be clients.
const MAX_STRANGERS: usize = 512;
/// Of these from one address, or one IPv6 network: a company's whole office may join at once. One more displaces the oldest
/// from there, so who floods displaces his own.
const MAX_STRANGERS_TOGETHER: usize = 64;

pub struct Table {
    connections: HashMap<ConnectionId, Connection>,
    /// In the order in which they came; some are no strangers any more, or gone.
    strangers: VecDeque<ConnectionId>,
    /// How many strangers there are.
    count: usize,
    /// They by where they come from, in the same order.
    together: HashMap<u128, VecDeque<ConnectionId>>,
    max: usize,
}

impl Table {
    /// `max`: connections altogether.
    pub fn new(max: usize) -> Self {
        Self {
            connections: HashMap::new(),
            strangers: VecDeque::new(),
            count: 0,
            together: HashMap::new(),
            max,
        }
    }

    pub fn len(&self) -> usize {
        self.connections.len()
    }

    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.connections.iter().map(|(id, connection)| (*id, connection))
    }

    /// Whether there is room for a connection from there.
    pub fn admit(&mut self, from: SocketAddr) -> Admission {
        let neighbours = self.together.get(&neighbourhood(from));
        if let Some(neighbours) = neighbours
            && neighbours.len() >= MAX_STRANGERS_TOGETHER
            && let Some(oldest) = neighbours.front()
        {
            return Admission::InPlaceOf(*oldest);
        }
        if self.count >= MAX_STRANGERS || self.connections.len() >= self.max {
            return self.oldest_stranger().map_or(Admission::Refused, Admission::InPlaceOf);
        }
        Admission::Admitted
    }

    fn oldest_stranger(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.strangers.front().copied() {
            if self.connections.get(&id).is_some_and(Connection::is_stranger) {
                return Some(id);
            }
            self.strangers.pop_front();
        }
        None
    }

    /// Enters a stranger.
    pub fn insert(&mut self, id: ConnectionId, connection: Connection) {
        self.together.entry(neighbourhood(connection.path.remote)).or_default().push_back(id);
        self.count += 1;
        // Those who were no strangers for long are passed over only when it is full; they must not pile up.
        if self.strangers.len() >= 2 * MAX_STRANGERS {
            let connections = &self.connections;
            self.strangers.retain(|id| connections.get(id).is_some_and(Connection::is_stranger));
        }
        self.strangers.push_back(id);
        self.connections.insert(id, connection);
    }

    /// An endpoint knows it.
    pub fn note_bound(&mut self, id: ConnectionId) {
        self.change(id, Connection::note_bound);
    }

    /// Nobody needs it any more.
    pub fn note_forgotten(&mut self, now: Instant, id: ConnectionId) {
        self.change(id, |connection| connection.note_forgotten(now));
    }

    fn change(&mut self, id: ConnectionId, change: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let was_stranger = connection.is_stranger();
        change(connection);
        if was_stranger && !connection.is_stranger() {
            let from = connection.path.remote;
            self.forget_stranger(id, from);
        }
    }

    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if connection.is_stranger() {
            self.forget_stranger(id, connection.path.remote);
        }
        Some(connection)
    }

    fn forget_stranger(&mut self, id: ConnectionId, from: SocketAddr) {
        self.count -= 1;
        let neighbourhood = neighbourhood(from);
        if let Some(neighbours) = self.together.get_mut(&neighbourhood) {
            neighbours.retain(|other| *other != id);
            if neighbours.is_empty() {
                self.together.remove(&neighbourhood);
            }
        }
    }
}

/// See [`Table::admit`].
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// When that one is closed.
    InPlaceOf(ConnectionId),
    Refused,
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection that says it comes from there.
    fn stranger(listener: &TcpListener, id: u64, from: &str) -> (ConnectionId, Connection) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _ = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let id = ConnectionId(id);
        let stream = mio::net::TcpStream::from_std(client);
        (id, Connection::new(Instant::now(), id, stream, from.parse().unwrap()))
    }

    #[test]
    fn who_floods_displaces_his_own_and_who_is_known_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut table = Table::new(100);
        let (known, connection) = stranger(&listener, 1, "192.0.2.1:1");
        table.insert(known, connection);
        table.note_bound(known);
        let (quiet, connection) = stranger(&listener, 2, "192.0.2.2:1");
        table.insert(quiet, connection);
        let flooder = |port: u64| format!("[2001:db8::{port:x}]:{port}");
        for id in 10..10 + MAX_STRANGERS_TOGETHER as u64 {
            assert_eq!(table.admit(flooder(id).parse().unwrap()), Admission::Admitted);
            let (id, connection) = stranger(&listener, id, &flooder(id));
            table.insert(id, connection);
        }
        let next: SocketAddr = flooder(9).parse().unwrap();
        assert_eq!(table.admit(next), Admission::InPlaceOf(ConnectionId(10)), "the oldest of one network");
        assert_eq!(table.admit("192.0.2.1:2".parse().unwrap()), Admission::Admitted);
        table.remove(ConnectionId(10)).unwrap();
        assert_eq!(table.admit(next), Admission::Admitted);

        // Full altogether: the oldest stranger goes, not whoever was there before and is known.
        while table.len() < 100 {
            let from = format!("198.51.100.{}:1", table.len());
            let (id, connection) = stranger(&listener, 1000 + table.len() as u64, &from);
            table.insert(id, connection);
        }
        assert_eq!(table.admit("203.0.113.1:1".parse().unwrap()), Admission::InPlaceOf(quiet));
        let all: Vec<_> = table.iter().map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| table.note_bound(id));
        assert_eq!(table.admit("203.0.113.1:1".parse().unwrap()), Admission::Refused);
        assert_eq!((table.count, table.together.len()), (0, 0));
    }
}
