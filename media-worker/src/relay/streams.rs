//! The relay's port over TCP, for clients whose network lets no UDP through: the same messages, one after the other (RFC
//! 8656, section 12.5 says how channel data is padded).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use super::allocation::{Back, MAX_PAYLOAD};
use super::counters::{Dropped, Refused};
use super::message::{FRONT, Message, length_in_stream};
use super::server::{Client, Server};
use crate::media::neighbourhood;

/// The longest message; one that says it is longer ends its connection.
const LONGEST: usize = MAX_PAYLOAD + FRONT + 256;
/// What is read at a time.
const READ: usize = 16 * 1024;
/// Messages that may wait for a client who does not read; at most 300 KB.
const WAITING: usize = 128;
/// How long a connection may be open without an allocation, and how long one message may take to be written.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections without an allocation, and of these from one address, or one IPv6 network.
const MAX_STRANGERS: usize = 512;
const MAX_STRANGERS_TOGETHER: usize = 64;
/// After an error of the listener, such as there being no descriptors.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, server: &Arc<Server>) {
    let strangers = Arc::<Strangers>::default();
    // Dropped, it ends them all. A panic ends the connection that it was about.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match strangers.admit(from) {
                    Some(stranger) => {
                        connections.spawn(connection(server.clone(), stream, from, stranger));
                    }
                    None => server.counters.refused(Refused::Connection),
                },
                Err(_) => tokio::time::sleep(ERROR_PAUSE).await,
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    tracing::error!("a connection to the relay made it panic");
                }
            }
        }
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, from: SocketAddr, stranger: Stranger) {
    // Media: what is there is to go.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (queue, waiting) = mpsc::channel(WAITING);
    let client = Client::new(from, Back::Stream(queue.clone()));
    let writing = write(writer, waiting);
    tokio::pin!(writing);
    tokio::select! {
        () = read(&server, reader, client, queue, stranger) => {
            // What it was answered last, such as to the end of its allocation.
            let _ = timeout(PATIENCE, writing).await;
        }
        () = &mut writing => {}
    }
}

/// Handles what comes, until the connection ends, is of no use, or carries something else.
async fn read(
    server: &Server,
    mut reader: OwnedReadHalf,
    mut client: Client,
    queue: mpsc::Sender<Vec<u8>>,
    stranger: Stranger,
) {
    let mut stranger = Some(stranger);
    let mut deadline = Instant::now() + PATIENCE;
    let mut buffer = Vec::with_capacity(READ);
    loop {
        let received = timeout_at(deadline.into(), reader.read_buf(&mut buffer)).await;
        if !matches!(received, Ok(Ok(1..))) {
            return;
        }
        let (mut at, now) = (0, Instant::now());
        loop {
            let length = match length_in_stream(&buffer[at..]) {
                Ok(Some(length)) if length <= LONGEST => length,
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {
                    server.counters.dropped(Dropped::Malformed);
                    return;
                }
            };
            let Some(message) = buffer.get(at..at + length) else { break };
            // Where one is none, what follows is not the beginning of another.
            if message[0] >> 6 == 0 && Message::parse(message).is_none() {
                server.counters.dropped(Dropped::Malformed);
                return;
            }
            if let Some(answer) = client.handle(server, now, message) {
                // Who does not read the answers gets no more.
                if queue.try_send(answer).is_err() {
                    return;
                }
            }
            at += length;
        }
        buffer.drain(..at);
        match client.expires() {
            Some(expires) => {
                stranger = None;
                deadline = expires;
            }
            // It had an allocation and gave it back, or this one expired.
            None if stranger.is_none() => return,
            None => {}
        }
    }
}

async fn write(mut writer: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = waiting.recv().await {
        if !matches!(timeout(PATIENCE, writer.write_all(&message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Connections without an allocation, by where they come from.
#[derive(Default)]
struct Strangers(Mutex<HashMap<u128, usize>>);

impl Strangers {
    fn admit(self: &Arc<Self>, from: SocketAddr) -> Option<Stranger> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = neighbourhood(from);
        let together = all.get(&from).copied().unwrap_or(0);
        if together >= MAX_STRANGERS_TOGETHER || all.values().sum::<usize>() >= MAX_STRANGERS {
            return None;
        }
        all.insert(from, together + 1);
        Some(Stranger { strangers: self.clone(), from })
    }
}

/// One of them, until it is dropped.
struct Stranger {
    strangers: Arc<Strangers>,
    from: u128,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut all = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(together) = all.get_mut(&self.from) {
            *together -= 1;
            if *together == 0 {
                all.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_floods_keeps_out_his_own() {
        let strangers = Arc::<Strangers>::default();
        let mut admitted: Vec<_> =
            (1..200).filter_map(|port| strangers.admit(SocketAddr::from(([192, 0, 2, 1], port)))).collect();
        assert_eq!(admitted.len(), MAX_STRANGERS_TOGETHER);
        assert!(strangers.admit("192.0.2.2:1".parse().unwrap()).is_some());
        admitted.pop();
        assert!(strangers.admit("192.0.2.1:9".parse().unwrap()).is_some());
        admitted.clear();
        assert!(strangers.0.lock().unwrap().is_empty());
    }
}
