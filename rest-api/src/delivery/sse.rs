//! Server-Sent Events (WHATWG HTML, section 9.2).
//!
//! An SSE client cannot confirm anything while its stream is open. What was written is therefore confirmed by the
//! next request's `Last-Event-ID`, or once [`WINDOW`] later events were written, oldest first. So a client that
//! reconnects gets at most that many events again, and one that fell more than that behind within the buffers of a dying
//! connection can miss some; polling and WebSocket have no such limit.
//!
//! A task pushes into a short queue that the HTTP body is made of: a client that does not read cannot hold the user
//! queue against a newer reader.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument as _;

use super::{Credentials, Held, Reader};
use crate::config::Timings;
use crate::metrics::{self, Gauge};

/// Events written and not confirmed; the one beyond it confirms the oldest.
pub const WINDOW: usize = 256;
/// Frames between the task and the connection.
const QUEUE: usize = 16;
/// First bytes: the client's `open` event, and how long it waits before it reconnects, in milliseconds.
const GREETING: &str = "retry: 1000\n: connected\n\n";
const COMMENT: &str = ": \n\n";

/// The body of the stream; ends when the reader is superseded, the endpoint's last event was written, or the token
/// or its key counts no more.
pub fn stream(reader: Reader, credentials: Credentials, timings: &Timings) -> ReceiverStream<Bytes> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let pump = Pump { reader, sender, timings: timings.clone(), credentials: Some(credentials), written: 0 };
    tokio::spawn(pump.run().in_current_span());
    ReceiverStream::new(receiver)
}

struct Pump {
    reader: Reader,
    sender: mpsc::Sender<Bytes>,
    timings: Timings,
    credentials: Option<Credentials>,
    /// Events at the front of the lease that were written.
    written: usize,
}

impl Pump {
    async fn run(mut self) {
        let _gauge = Gauge::stream("sse");
        let cancelled = self.reader.cancelled();
        let sender = self.sender.clone();
        let credentials = self.credentials.take().expect("a pump runs once");
        // Whatever the stream is doing, these end it; the lease is free as soon as this returns.
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = sender.closed() => {}
            _ = credentials.lapse() => {}
            _ = self.pump() => {}
        }
    }

    /// `None` when the stream is over.
    async fn pump(&mut self) -> Option<()> {
        self.write(Bytes::from_static(GREETING.as_bytes())).await?;
        let mut keep_alive = tokio::time::interval(self.timings.keep_alive);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        keep_alive.reset();
        loop {
            self.write_events().await?;
            let lease = self.reader.lease()?;
            if lease.end().is_some() {
                return None;
            }
            let comment = tokio::select! {
                _ = keep_alive.tick() => true,
                filled = lease.fill() => {
                    if filled.is_err() {
                        self.reader.discard();
                        return None;
                    }
                    false
                }
            };
            if comment {
                self.write(Bytes::from_static(COMMENT.as_bytes())).await?;
            }
        }
    }

    async fn write_events(&mut self) -> Option<()> {
        loop {
            let lease = self.reader.lease()?;
            let Some(frame) = lease.events().nth(self.written).map(frame) else { return Some(()) };
            self.write(frame).await?;
            metrics::delivered("sse", 1);
            self.written += 1;
            if self.written > WINDOW {
                self.reader.lease()?.confirm_oldest().await;
                self.written -= 1;
            }
        }
    }

    async fn write(&mut self, frame: Bytes) -> Option<()> {
        tokio::time::timeout(self.timings.write_timeout, self.sender.send(frame)).await.ok()?.ok()
    }
}

/// JSON has no line breaks, so one `data` line holds it.
fn frame(held: &Held) -> Bytes {
    format!("id: {}\nevent: {}\ndata: {}\n\n", held.id, held.kind, held.json()).into()
}
