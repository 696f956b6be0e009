//! The server out of reach: calls fail soon and say so, everything resumes by itself.
//!
//! A TCP relay stands between the store and the real server; the test cuts it, stalls it, and lets it go again.

use std::net::SocketAddr;
use std::time::Instant;

use ::mongodb::options::ServerAddress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::store::SessionChangeKind;
use crate::store::conformance::{PATIENCE, next_of, session};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Relay,
    /// Connections are closed, new ones too.
    Cut,
    /// Connections stay, nothing moves.
    Stall,
}

struct Relay {
    mode: watch::Sender<Mode>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    async fn start() -> Self {
        let options = ClientOptions::parse(server_url()).await.unwrap();
        let ServerAddress::Tcp { host, port } = options.hosts[0].clone() else {
            panic!("a TCP server is needed")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, current) = watch::channel(Mode::Relay);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *current.borrow() != Mode::Cut {
                    let server = (host.clone(), port.unwrap_or(27_017));
                    tokio::spawn(relay(near, server, current.clone()));
                }
            }
        });
        Self { mode, address, accepting }
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    fn url(&self, database: &str) -> String {
        format!("mongodb://{}/{database}?directConnection=true", self.address)
    }
}

async fn relay(near: TcpStream, server: (String, u16), mut mode: watch::Receiver<Mode>) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let (up, down) = (pump(near_read, far_write, mode.clone()), pump(far_read, near_write, mode.clone()));
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Runs the test with a store behind a relay, and another straight at the same database.
async fn with_relay<F>(test: impl FnOnce(Relay, MongoStore, MongoStore) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    with_store(|direct| async move {
        let relay = Relay::start().await;
        let behind = MongoStore::connect(&relay.url(direct.shared.database.name())).await.unwrap();
        test(relay, behind, direct).await;
    })
    .await;
}

async fn becomes(store: &MongoStore, reachable: bool) {
    let mut connected = store.connected();
    let wait = connected.wait_for(|connected| *connected == reachable);
    tokio::time::timeout(PATIENCE, wait).await.expect("it is noticed").unwrap();
}

#[tokio::test]
async fn a_cut_is_told_and_mended_without_help() {
    with_relay(|relay, behind, direct| async move {
        let session = session();
        behind.insert_session(&session).await.unwrap();
        assert!(*behind.connected().borrow());

        relay.set(Mode::Cut);
        let started = Instant::now();
        let read = behind.session(session.id).await.unwrap_err();
        let written = behind.close_session(session.id, UnixMillis(1)).await.unwrap_err();
        let watched = behind.watch_sessions(None).await.err().expect("no stream without server");
        for failed in [read, written, watched] {
            assert_eq!(failed.kind, StoreErrorKind::Unavailable, "{failed}");
        }
        assert!(started.elapsed() < 3 * OPERATION_LIMIT, "each within its bound");
        becomes(&behind, false).await;
        assert!(*direct.connected().borrow());

        relay.set(Mode::Relay);
        becomes(&behind, true).await;
        assert_eq!(behind.session(session.id).await.unwrap(), Some(session));
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable_in_time() {
    with_relay(|relay, behind, _direct| async move {
        relay.set(Mode::Stall);
        let started = Instant::now();
        let pinged = behind.ping(Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(pinged.kind, StoreErrorKind::Unavailable);
        assert!(started.elapsed() < OPERATION_LIMIT, "{:?}", started.elapsed());
        let read = behind.session(SessionId::new()).await.unwrap_err();
        assert_eq!(read.kind, StoreErrorKind::Unavailable);
        assert!(started.elapsed() < 2 * OPERATION_LIMIT + Duration::from_secs(5), "{:?}", started.elapsed());
        becomes(&behind, false).await;
        relay.set(Mode::Relay);
        becomes(&behind, true).await;
    })
    .await;
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_cut() {
    with_relay(|relay, behind, direct| async move {
        let mut watch = behind.watch_sessions(None).await.unwrap();
        let (first, second, third) = (session(), session(), session());
        direct.insert_session(&first).await.unwrap();
        assert_eq!(next_of(&mut watch).await.session_id, first.id);

        relay.set(Mode::Cut);
        direct.insert_session(&second).await.unwrap();
        direct.close_session(first.id, UnixMillis(1)).await.unwrap();
        let impatient = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
        assert!(impatient.is_err(), "nothing comes through");
        becomes(&behind, false).await;
        direct.insert_session(&third).await.unwrap();
        relay.set(Mode::Relay);
        missed_are_given(&mut *watch, &first, &second, &third).await;
    })
    .await;
}

/// As above, but somebody waits all through it, until the driver has given up and the watch opens streams anew.
#[tokio::test]
async fn a_watch_resumes_after_a_long_outage() {
    with_relay(|relay, behind, direct| async move {
        let mut watch =
            super::super::watch::MongoWatch::open(behind.shared.sessions.clone(), None).await.unwrap();
        let (first, second, third) = (session(), session(), session());
        direct.insert_session(&first).await.unwrap();
        assert_eq!(watch.next().await.unwrap().session_id, first.id);

        relay.set(Mode::Cut);
        direct.insert_session(&second).await.unwrap();
        direct.close_session(first.id, UnixMillis(1)).await.unwrap();
        let started = Instant::now();
        while !watch.is_reopening() {
            assert!(started.elapsed() < PATIENCE, "the driver gives up");
            // Dropped again and again: the attempts go on all the same.
            let waited = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
            assert!(waited.is_err(), "nothing comes through");
        }
        direct.insert_session(&third).await.unwrap();
        relay.set(Mode::Relay);
        missed_are_given(&mut watch, &first, &second, &third).await;
    })
    .await;
}

/// Second inserted, first closed, third inserted: exactly these, read by a caller who keeps dropping `next`.
async fn missed_are_given(watch: &mut dyn SessionWatch, first: &Session, second: &Session, third: &Session) {
    let started = Instant::now();
    let mut changes = Vec::new();
    while changes.len() < 3 {
        assert!(started.elapsed() < PATIENCE, "only {changes:?}");
        if let Ok(change) = tokio::time::timeout(Duration::from_millis(50), watch.next()).await {
            let change = change.unwrap();
            changes.push((change.session_id, matches!(change.kind, SessionChangeKind::Closed)));
        }
    }
    assert_eq!(changes, [(second.id, false), (first.id, true), (third.id, false)]);
}

#[tokio::test]
async fn a_watch_that_saw_nothing_yet_resumes_too() {
    with_relay(|relay, behind, direct| async move {
        let mut watch = behind.watch_sessions(None).await.unwrap();
        relay.set(Mode::Cut);
        let missed = session();
        direct.insert_session(&missed).await.unwrap();
        becomes(&behind, false).await;
        relay.set(Mode::Relay);
        assert_eq!(next_of(&mut watch).await.session_id, missed.id);
    })
    .await;
}

#[tokio::test]
async fn connecting_fails_soon_and_keeps_secrets() {
    // A port of our own that refuses: bound, never listened on.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let started = Instant::now();
    let url = format!("mongodb://someone:hunter2@{address}/db");
    let refused = MongoStore::connect(&url).await.err().expect("nobody listens");
    assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused}");
    assert!(started.elapsed() < OPERATION_LIMIT, "{:?}", started.elapsed());
    assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
}

#[tokio::test]
async fn a_bad_url_is_refused_without_repeating_its_credentials() {
    for url in [
        "mongodb://someone:hunter2",
        "mongodb://someone:hun:ter2@host",
        "mongodb://someone:hunter2@host:port/db",
        "mongodb://someone:hunter2@host/db?w=hunter2&authMechanism=nonsense",
        "mongodb://someone:hunter2@host/?tls=maybe",
        "mongodb://some%zzone:hunter2%@host/db",
        "mongodb://someone:hunter2/x@host/db",
        "mongodb://someone:hunter2@host/bad\"name?x",
    ] {
        let refused = MongoStore::connect(url).await.err().expect(url);
        let text = format!("{refused} {refused:?}");
        assert!(!text.contains("hunter2") && !text.contains("hun:ter2"), "{url}: {text}");
    }
}
