//! One supervised connection: opens it, notices its loss, and reconnects with back-off for as long as it takes.

use std::net::Ipv6Addr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::channels::Channels;
use super::error::{from_lapin, unavailable};
use super::lease::Pool;
use super::{CALL_TIMEOUT, bounded};
use crate::broker::metrics::Back;
use crate::broker::{BrokerError, BrokerErrorKind, BrokerResult};

/// Seconds between signs of life; RabbitMQ and we give a silent connection up after about twice that. As long as it does
/// not, a process that hangs is still given its share of what others wait for, so this is short.
const HEARTBEAT_SECONDS: u16 = 5;
/// The largest frame, in bytes, unless the URL names one. lapin holds 64 of them for each connection, which would be 8 MiB
/// with RabbitMQ's own 128 KiB; what is larger goes in several.
const FRAME_BYTES: u32 = 32 * 1024;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// lapin reports every loss as an event; this bounds how long one would go unnoticed if it ever did not.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// One connection while it lives.
pub(super) struct Live {
    /// Another one for each connection of this process.
    pub(super) generation: u64,
    pub(super) connection: Connection,
    pub(super) channels: Channels,
    /// For declaring, binding and deleting.
    pub(super) control: Pool,
    /// For sending.
    pub(super) confirming: Pool,
}

impl Live {
    async fn dial(name: &'static str, uri: &AMQPUri) -> BrokerResult<Arc<Self>> {
        bounded(async {
            let properties = ConnectionProperties::default()
                .with_connection_name("switchyard".into())
                .with_client_property("switchyard_link".into(), name.into());
            let connection = Connection::connect_uri(uri.clone(), properties)
                .await
                .map_err(|error| from_lapin("connect to RabbitMQ", error))
                // Refused credentials arrive as a refusal of the connection: not there for us.
                .map_err(|error| BrokerError { kind: BrokerErrorKind::Unavailable, ..error })?;
            let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
            Ok(Arc::new(Self {
                generation,
                connection,
                channels: Channels::default(),
                control: Pool::new(false),
                confirming: Pool::new(true),
            }))
        })
        .await
    }

    pub(super) async fn open_channel(&self) -> BrokerResult<Channel> {
        self.channels.open(&self.connection).await
    }

    /// Returns when the connection is no more.
    async fn lost(&self) {
        let mut events = std::pin::pin!(self.connection.events_listener());
        while self.connection.status().connected() {
            let event = tokio::select! {
                event = events.next() => event,
                () = tokio::time::sleep(LOOK_AGAIN) => continue,
            };
            match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(reason, "RabbitMQ is short of resources and takes no messages for now");
                }
                Some(Event::ConnectionUnblocked) => tracing::info!("RabbitMQ takes messages again"),
                Some(_) => {}
                None => return,
            }
        }
    }

    async fn close(&self) {
        // Nobody is left to tell when this fails: the connection is gone then as well.
        let _ = bounded(async {
            self.connection.close(200, "closed".into()).await.map_err(|error| from_lapin("close", error))
        })
        .await;
    }
}

/// A connection that is opened again whenever it is lost.
pub(super) struct Link {
    name: &'static str,
    uri: AMQPUri,
    live: watch::Sender<Option<Arc<Live>>>,
    /// Carries calls only, no inboxes and no exclusive queues: those belong to their connection, which is not replaced.
    renews: bool,
    /// Places taken by inboxes.
    inboxes: AtomicUsize,
    closed: CancellationToken,
    ended: CancellationToken,
}

impl Link {
    /// Connects once and fails when that fails. The caller must then run [`Link::supervise`].
    pub(super) async fn open(
        name: &'static str,
        uri: AMQPUri,
        renews: bool,
        closed: CancellationToken,
    ) -> BrokerResult<(Arc<Self>, Arc<Live>)> {
        let first = Live::dial(name, &uri).await?;
        let link = Self {
            name,
            uri,
            live: watch::Sender::new(Some(first.clone())),
            renews,
            inboxes: AtomicUsize::new(0),
            closed,
            ended: CancellationToken::new(),
        };
        Ok((Arc::new(link), first))
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    /// The connection, or `Unavailable` while there is none.
    pub(super) fn live(&self) -> BrokerResult<Arc<Live>> {
        if self.closed.is_cancelled() {
            return Err(unavailable("the broker was closed"));
        }
        self.live.borrow().clone().ok_or_else(|| unavailable("not connected to RabbitMQ"))
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Live>>> {
        self.live.subscribe()
    }

    /// Waits for a connection. `None` once the broker is closed.
    pub(super) async fn wait_live(&self) -> Option<Arc<Live>> {
        let mut live = self.watch();
        tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            found = live.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
        }
    }

    /// Whether the connection should take nothing new; see [`Channels::is_worn`].
    pub(super) fn is_worn(&self) -> bool {
        self.live.borrow().as_ref().is_some_and(|live| live.channels.is_worn())
    }

    /// Ends the link if it is worn and nobody has a place on it any more. Returns whether it did.
    pub(super) fn retire(&self) -> bool {
        let retires = self.is_worn() && self.inboxes.load(Ordering::Relaxed) == 0;
        if retires {
            self.closed.cancel();
        }
        retires
    }

    /// Takes a place for one more inbox on this connection, unless `limit` are taken.
    pub(super) fn reserve(self: &Arc<Self>, limit: usize) -> Option<Place> {
        self.inboxes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < limit).then_some(taken + 1))
            .is_ok()
            .then(|| Place { link: self.clone() })
    }

    /// Waits until the connection has been closed after the link was.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Runs until the link is closed. `prepare` gets each new connection before anyone else does; when it fails
    /// the connection is given up and the next attempt made.
    pub(super) async fn supervise<F>(
        self: Arc<Self>,
        first: Arc<Live>,
        prepare: impl Fn(Arc<Live>) -> F + Send + 'static,
    ) where
        F: Future<Output = BrokerResult<()>> + Send,
    {
        let mut live = first;
        loop {
            let lost = tokio::select! {
                biased;
                () = self.closed.cancelled() => false,
                () = live.lost() => true,
                renewed = self.renew(&live) => {
                    live = renewed;
                    continue;
                }
            };
            self.live.send_replace(None);
            if !lost {
                live.close().await;
                break;
            }
            tracing::warn!(link = self.name, "connection to RabbitMQ lost");
            drop(live);
            match self.reconnect(&prepare).await {
                Some(again) => live = again,
                None => break,
            }
            Back::Rabbit.reconnected();
            tracing::info!(link = self.name, "connected to RabbitMQ again");
            self.live.send_replace(Some(live.clone()));
        }
        self.ended.cancel();
    }

    /// Waits until a connection that carries calls only is worn, and puts a new one in its place. There is always one of the
    /// two; calls on the old one are finished there.
    async fn renew(&self, live: &Arc<Live>) -> Arc<Live> {
        if !self.renews {
            return std::future::pending().await;
        }
        live.channels.worn().await;
        let mut delay = FIRST_RETRY;
        loop {
            match Live::dial(self.name, &self.uri).await {
                Ok(renewed) => {
                    tracing::info!(link = self.name, "a worn connection to RabbitMQ was replaced");
                    self.live.send_replace(Some(renewed.clone()));
                    let old = live.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(2 * CALL_TIMEOUT).await;
                        old.close().await;
                    });
                    return renewed;
                }
                Err(error) => {
                    tracing::info!(link = self.name, %error, "a worn connection to RabbitMQ goes on")
                }
            }
            tokio::time::sleep(jittered(delay)).await;
            delay = (delay * 2).min(LAST_RETRY);
        }
    }

    async fn reconnect<F>(&self, prepare: &impl Fn(Arc<Live>) -> F) -> Option<Arc<Live>>
    where
        F: Future<Output = BrokerResult<()>>,
    {
        let mut delay = FIRST_RETRY;
        loop {
            tokio::select! {
                () = tokio::time::sleep(jittered(delay)) => {}
                () = self.closed.cancelled() => return None,
            }
            delay = (delay * 2).min(LAST_RETRY);
            let attempt = async {
                let live = Live::dial(self.name, &self.uri).await?;
                match prepare(live.clone()).await {
                    Ok(()) => Ok(live),
                    Err(error) => {
                        live.close().await;
                        Err(error)
                    }
                }
            };
            let attempt = tokio::select! {
                attempt = attempt => attempt,
                () = self.closed.cancelled() => return None,
            };
            match attempt {
                Ok(live) => return Some(live),
                Err(error) => tracing::info!(link = self.name, %error, "RabbitMQ is still not reachable"),
            }
        }
    }
}

/// The place of one inbox on a link.
pub(super) struct Place {
    link: Arc<Link>,
}

impl Deref for Place {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.inboxes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Between half of and the whole delay, so that a restarted RabbitMQ is not met by everyone at once.
pub(super) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(0.5..=1.0))
}

/// A URL as lapin wants it, with our heartbeat and frame size unless it names them.
///
/// # Errors
/// `Internal`. The text does not repeat the URL, which may carry a password.
pub(super) fn parse(url: &str) -> BrokerResult<AMQPUri> {
    let mut uri: AMQPUri = url.parse().map_err(|_| {
        BrokerError::new(
            BrokerErrorKind::Internal,
            "not a RabbitMQ URL: expected amqp://user:password@host:port/virtual-host",
        )
    })?;
    if uri.vhost.is_empty() {
        // Strictly, a bare slash names the virtual host "", which hardly anyone has.
        uri.vhost = "/".to_owned();
    }
    if let Some(address) = ipv6_host(url) {
        // lapin's parser takes such a host for none, and none for localhost.
        uri.authority.host = address.to_string();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    uri.query.frame_max.get_or_insert(FRAME_BYTES);
    Ok(uri)
}

fn ipv6_host(url: &str) -> Option<Ipv6Addr> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    host.strip_prefix('[')?.split_once(']')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_slash_is_the_default_virtual_host() {
        for url in ["amqp://h", "amqp://h/", "amqp://h/%2f"] {
            assert_eq!(parse(url).unwrap().vhost, "/", "{url}");
        }
        assert_eq!(parse("amqp://h/calls").unwrap().vhost, "calls");
    }

    #[test]
    fn an_ipv6_address_is_not_taken_for_localhost() {
        let authority = parse("amqp://user:pass@[2001:db8::1]:5673/calls?heartbeat=3").unwrap().authority;
        assert_eq!((authority.host.as_str(), authority.port), ("2001:db8::1", 5673));
        assert_eq!(parse("amqp://[::1]").unwrap().authority.host, "::1");
        assert_eq!(parse("amqp://host/[::1]").unwrap().authority.host, "host");
    }

    #[test]
    fn heartbeat_and_frame_size_are_ours_unless_the_url_names_them() {
        assert_eq!(parse("amqp://h").unwrap().query.heartbeat, Some(HEARTBEAT_SECONDS));
        assert_eq!(parse("amqp://h?heartbeat=3").unwrap().query.heartbeat, Some(3));
        assert_eq!(parse("amqp://h").unwrap().query.frame_max, Some(FRAME_BYTES));
        assert_eq!(parse("amqp://h?frame_max=9000").unwrap().query.frame_max, Some(9000));
    }

    #[test]
    fn what_is_not_a_url_is_refused_without_repeating_it() {
        for url in ["", "amqp", "amqp:user:secret", "http://user:secret@h", "amqp://user:secret@h:port"] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind, BrokerErrorKind::Internal, "{url}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn the_delay_is_spread_but_never_longer() {
        for _ in 0..100 {
            let delay = jittered(LAST_RETRY);
            assert!((LAST_RETRY / 2..=LAST_RETRY).contains(&delay), "{delay:?}");
        }
    }
}
