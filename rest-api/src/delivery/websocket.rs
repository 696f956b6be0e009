//! WebSocket (RFC 6455): one text frame per event; the client confirms with `{"ack": "evt_…"}`.
//!
//! | close code | why |
//! |---|---|
//! | 1001 | this server shuts down |
//! | 1003 | a binary message |
//! | 1008 | a message that is no acknowledgement, or too many of them |
//! | 1009 | a message over 4 KiB |
//! | 4000 | another reader took over |
//! | 4001 | left, removed, or the session is closed |
//! | 4002 | the token has expired |
//! | 4003 | the endpoint is gone: replaced by a newer one, or not read for too long |
//! | 4004 | the API key behind the credentials was removed |

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use common::model::EventId;
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior};

use super::lease::Confirmed;
use super::{Credentials, Ends, Lapse, Reader, Readers, Refused};
use crate::config::Timings;
use crate::metrics::{self, Gauge};

/// The largest message a client may send, in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024;
/// How long to wait for the confirmation of the last event, and for the other side's close frame.
const LINGER: Duration = Duration::from_secs(1);

pub const GOING_AWAY: u16 = 1001;
pub const UNSUPPORTED: u16 = 1003;
pub const POLICY: u16 = 1008;
pub const TOO_BIG: u16 = 1009;
pub const SUPERSEDED: u16 = 4000;
pub const OVER: u16 = 4001;
pub const EXPIRED: u16 = 4002;
pub const ENDPOINT_GONE: u16 = 4003;
pub const KEY_REMOVED: u16 = 4004;

/// A message of the client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    ack: EventId,
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With this close code.
    Close(u16),
    /// The connection is lost, or does not take what is sent.
    Lost,
}

/// Serves one connection until it ends.
pub async fn serve(
    mut socket: WebSocket,
    reader: Result<Reader, Refused>,
    readers: &Readers,
    credentials: Credentials,
    timings: &Timings,
) {
    let _gauge = Gauge::stream("websocket");
    let end = match reader {
        Ok(reader) => {
            let cancelled = reader.cancelled();
            let mut stream = Stream::new(&mut socket, reader, timings);
            // Whatever the stream is doing, these end it; the lease is free as soon as the stream is dropped.
            let end = tokio::select! {
                biased;
                () = cancelled.cancelled() => None,
                lapse = credentials.lapse() => Some(End::Close(lapse_code(lapse))),
                end = stream.run() => Some(end),
            };
            drop(stream);
            end.unwrap_or_else(|| End::Close(refused_code(&readers.why_cancelled())))
        }
        Err(refused) => End::Close(refused_code(&refused)),
    };
    if let End::Close(code) = end {
        close(socket, code).await;
    }
}

fn lapse_code(lapse: Lapse) -> u16 {
    match lapse {
        Lapse::Expired => EXPIRED,
        Lapse::KeyRemoved => KEY_REMOVED,
    }
}

fn refused_code(refused: &Refused) -> u16 {
    match refused {
        Refused::Superseded => SUPERSEDED,
        Refused::Gone => ENDPOINT_GONE,
        Refused::ShuttingDown | Refused::Failed(_) => GOING_AWAY,
    }
}

async fn close(mut socket: WebSocket, code: u16) {
    let reason = match code {
        SUPERSEDED => "another reader took over",
        OVER => "left or closed",
        EXPIRED => "the token has expired",
        ENDPOINT_GONE => "the endpoint is gone",
        KEY_REMOVED => "the API key was removed",
        UNSUPPORTED => "text messages only",
        POLICY => "not an acknowledgement, or too many",
        TOO_BIG => "the message is too big",
        _ => "going away",
    };
    let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let goodbye = async {
        if socket.send(frame).await.is_ok() {
            // Until the other side has answered: closing at once could discard the frame on its way.
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = tokio::time::timeout(LINGER, goodbye).await;
}

struct Stream<'a> {
    socket: &'a mut WebSocket,
    reader: Reader,
    timings: &'a Timings,
    /// Events at the front of the lease that were sent.
    sent: usize,
    allowance: Allowance,
    heard: Instant,
}

impl<'a> Stream<'a> {
    fn new(socket: &'a mut WebSocket, reader: Reader, timings: &'a Timings) -> Self {
        let (sent, allowance, heard) = (0, Allowance::new(Instant::now()), Instant::now());
        Self { socket, reader, timings, sent, allowance, heard }
    }

    async fn run(&mut self) -> End {
        match self.pump().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn pump(&mut self) -> Result<std::convert::Infallible, End> {
        let mut ping = tokio::time::interval(self.timings.keep_alive);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let mut leave_at = None;
        loop {
            self.send_events().await?;
            let lease = self.reader.lease().ok_or(End::Close(ENDPOINT_GONE))?;
            if let (Some(end), None) = (lease.end(), &leave_at) {
                leave_at = Some((Instant::now() + LINGER, end_code(end)));
            }
            tokio::select! {
                code = until(leave_at) => return Err(End::Close(code)),
                _ = ping.tick() => self.ping().await?,
                message = self.socket.recv() => self.receive(message).await?,
                filled = lease.fill() => {
                    if filled.is_err() {
                        self.reader.discard();
                        return Err(End::Close(ENDPOINT_GONE));
                    }
                }
            }
        }
    }

    async fn send_events(&mut self) -> Result<(), End> {
        loop {
            let lease = self.reader.lease().ok_or(End::Close(ENDPOINT_GONE))?;
            let Some(text) = lease.events().nth(self.sent).map(|held| held.json()) else {
                return Ok(());
            };
            self.send(Message::Text(text.into())).await?;
            metrics::delivered("websocket", 1);
            self.sent += 1;
            self.allowance.grow();
        }
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.heard.elapsed() > self.timings.keep_alive * 5 / 2 {
            return Err(End::Lost);
        }
        self.send(Message::Ping(bytes::Bytes::new())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(self.timings.write_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Lost),
        }
    }

    async fn receive(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard = Instant::now();
        let message = message.ok_or(End::Lost)?.map_err(|error| why_broken(&error))?;
        if !self.allowance.spend(self.heard) {
            return Err(End::Close(POLICY));
        }
        match message {
            Message::Text(text) => {
                let ack: Ack = serde_json::from_str(&text).map_err(|_| End::Close(POLICY))?;
                self.confirm(ack.ack).await
            }
            Message::Binary(_) => Err(End::Close(UNSUPPORTED)),
            Message::Close(_) => Err(End::Lost),
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        }
    }

    async fn confirm(&mut self, cursor: EventId) -> Result<(), End> {
        let lease = self.reader.lease().ok_or(End::Close(ENDPOINT_GONE))?;
        let before = lease.held();
        let confirmed = lease.confirm(cursor).await;
        self.sent = self.sent.saturating_sub(before - lease.held());
        match confirmed {
            Confirmed::Over(end) => {
                self.reader.discard();
                Err(End::Close(end_code(end)))
            }
            Confirmed::Removed | Confirmed::Unknown => Ok(()),
        }
    }
}

/// The close code for a stream whose last event was this.
fn end_code(end: Ends) -> u16 {
    match end {
        Ends::Replaced => ENDPOINT_GONE,
        Ends::No | Ends::Left | Ends::Closed => OVER,
    }
}

async fn until(leave_at: Option<(Instant, u16)>) -> u16 {
    match leave_at {
        Some((at, code)) => {
            tokio::time::sleep_until(at).await;
            code
        }
        None => std::future::pending().await,
    }
}

/// A message that is too big has its own code; what else breaks a connection needs no words.
fn why_broken(error: &axum::Error) -> End {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("too long") {
            return End::Close(TOO_BIG);
        }
        source = error.source();
    }
    End::Lost
}

/// How many messages a client may still send: two for every event it got, and ten a second.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    const START: f64 = 100.0;
    const MOST: f64 = 5_000.0;
    const PER_SECOND: f64 = 10.0;
    const PER_EVENT: f64 = 2.0;

    fn new(now: Instant) -> Self {
        Self { left: Self::START, at: now }
    }

    fn grow(&mut self) {
        self.left = (self.left + Self::PER_EVENT).min(Self::MOST);
    }

    fn spend(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * Self::PER_SECOND).min(Self::MOST) - 1.0;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_acknowledges_every_event_twice_is_no_flood_and_who_sends_more_is() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for _ in 0..10_000 {
            allowance.grow();
            assert!(allowance.spend(start) && allowance.spend(start));
        }
        let more = (0..200).take_while(|_| allowance.spend(start)).count();
        assert_eq!(more, 100);
        assert!(allowance.spend(start + Duration::from_secs(60)));
    }
}
