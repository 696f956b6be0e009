//! The relay's port over UDP. Clients are known by their address from their allocation on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;

use super::TICK;
use super::allocation::{Back, MAX_PAYLOAD};
use super::message::FRONT;
use super::server::{Client, Server};

/// The longest datagram that is looked at: a send indication with the longest payload, and some attributes.
const LONGEST: usize = MAX_PAYLOAD + FRONT + 256;
/// After an error of the socket, so that one that lasts costs nothing.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Serves until it is dropped.
pub async fn serve(socket: Arc<UdpSocket>, server: &Arc<Server>) {
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut buffer = vec![0; LONGEST];
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => handle(server, &socket, &mut clients, from, &buffer[..length]),
                // About one datagram that was sent before, or about the socket.
                Err(_) => tokio::time::sleep(ERROR_PAUSE).await,
            },
            _ = ticks.tick() => {
                let now = Instant::now();
                clients.retain(|_, client| client.expires().is_some_and(|expires| now < expires));
            }
        }
    }
}

fn handle(
    server: &Arc<Server>,
    socket: &Arc<UdpSocket>,
    clients: &mut HashMap<SocketAddr, Client>,
    from: SocketAddr,
    bytes: &[u8],
) {
    let back = || Back::Datagrams(socket.clone(), from);
    let now = Instant::now();
    // A bug that a datagram finds ends one allocation at most.
    let handled = catch_unwind(AssertUnwindSafe(|| match clients.get_mut(&from) {
        Some(client) => (client.handle(server, now, bytes), None),
        None => {
            let mut stranger = Client::new(from, back());
            let answer = stranger.handle(server, now, bytes);
            (answer, stranger.expires().is_some().then_some(stranger))
        }
    }));
    let Ok((answer, newcomer)) = handled else {
        tracing::error!("a datagram to the relay made it panic");
        clients.remove(&from);
        return;
    };
    if let Some(newcomer) = newcomer {
        clients.insert(from, newcomer);
    } else if clients.get(&from).is_some_and(|client| client.expires().is_none()) {
        clients.remove(&from);
    }
    if let Some(answer) = answer {
        // What does not get out is asked for again.
        back().send(&answer);
    }
}
