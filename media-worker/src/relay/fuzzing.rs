//! Any bytes at the relay: of a stranger, of somebody with an allocation, and as the attributes of requests whose
//! credentials are good.

use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use common::model::ParticipantId;
use common::time::UnixMillis;
use common::turn::{Credential, TurnSecret};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::RelayConfig;
use super::access::{REALM, key};
use super::allocation::Back;
use super::message::{Message, Writer, attribute, kind, length_in_stream};
use super::peers::Peers;
use super::server::{Client, Server};

struct Bench {
    /// Held by who uses it: the server's allocations are counted.
    runtime: Mutex<Runtime>,
    server: Server,
    credential: Credential,
    key: [u8; 16],
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let secret: TurnSecret = "north-wind-and-sun".parse().expect("long enough");
        let credential =
            secret.credential(ParticipantId::new(), UnixMillis::now(), Duration::from_secs(86_400));
        let provider = rtc::crypto::default_provider().expect("cryptography");
        let key = key(&*provider, &credential.username, REALM, &credential.password);
        // Discard (RFC 863): nobody is there.
        let media = SocketAddr::from(([127, 0, 0, 1], 9));
        let config = RelayConfig {
            listen: media,
            secret,
            ports: None,
            max_allocations: 2,
            max_allocations_per_user: 2,
            lifetime: Duration::from_secs(600),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = Server::new(config, Peers::of(media, &[media])).expect("random numbers");
        Bench { runtime: Mutex::new(runtime), server, credential, key }
    })
}

/// Messages and channel data, over UDP and TCP.
pub fn messages(data: &[u8]) {
    let _ = length_in_stream(data);
    let Bench { runtime, server, credential, key } = bench();
    let from: SocketAddr = ([192, 0, 2, 1], 5000).into();
    let nonce = server.access.nonce(from, UnixMillis::now());
    let signed = |kind: u16, raw: &[u8]| {
        let request = Writer::new(kind, [7; 12])
            .with(attribute::USERNAME, credential.username.as_bytes())
            .with(attribute::REALM, REALM.as_bytes())
            .with(attribute::NONCE, nonce.as_bytes())
            .with(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        request.with_raw(&raw[..raw.len().min(1_000) / 4 * 4]).sign(key)
    };
    runtime.lock().unwrap_or_else(PoisonError::into_inner).block_on(async {
        let (queue, _waiting) = mpsc::channel(64);
        let (mut client, now) = (Client::new(from, Back::Stream(queue)), Instant::now());
        let mut take = |bytes: &[u8]| {
            if let Some(answer) = client.handle(server, now, bytes) {
                assert!(Message::parse(&answer).is_some(), "what is answered can be read");
            }
            client.expires().is_some()
        };
        assert!(!take(data), "nobody gets an allocation without credentials");
        take(&signed(kind::ALLOCATE, data));
        let made = take(&signed(kind::ALLOCATE, &[]));
        assert!(made, "there is room for one");
        for kind in [kind::CREATE_PERMISSION, kind::CHANNEL_BIND, kind::SEND, kind::REFRESH] {
            take(&signed(kind, data));
        }
        take(data);
        drop(client);
        // For the task of the allocation to end.
        tokio::task::yield_now().await;
        assert_eq!(server.quota.taken(), 0);
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::HEADER;
    use super::*;

    proptest! {
        /// What a fuzzer would take longer to find: attributes that are well formed, of the types that are looked at.
        #[test]
        fn any_attributes_are_taken(
            attributes in prop::collection::vec((0u16..0x28, prop::collection::vec(any::<u8>(), 0..24)), 0..8),
            kind in 0u16..0x20,
            cut in 0usize..200,
        ) {
            let message = attributes
                .iter()
                .fold(Writer::new(kind, [9; 12]), |message, (kind, value)| message.with(*kind, value))
                .finish();
            messages(&message);
            messages(&message[HEADER..]);
            messages(&message[..cut.min(message.len())]);
        }
    }
}
