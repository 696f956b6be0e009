//! Which HTTP a connection speaks, found out before it is served, and how each is.
//!
//! hyper-util finds that out, too, but then hands the first bytes of a request on by themselves, and hyper makes room for the
//! others behind them: every connection over HTTP/1.1 would keep a buffer of 16 KB in place of 8.

use std::error::Error;
use std::pin::{Pin, pin};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::config::Timings;
use crate::server::Connected;

/// The longest head of a request over HTTP/1.1, in bytes; beyond it 431. Twice the longest token and then some.
const MAX_HEAD: usize = 64 * 1024;
const MAX_STREAMS: u32 = 256;
/// What HTTP/2 begins with and no request of HTTP/1.1 does (RFC 9113, section 3.4; the method is reserved).
const PREFACE: &[u8; 3] = b"PRI";
/// HTTP/2 in TLS (RFC 9113, section 3.2).
const H2: &[u8] = b"h2";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    /// Too little is there to tell.
    Unknown,
}

impl Protocol {
    /// Of a connection without TLS. Waits until it begins, for as long as that takes, and takes nothing from it.
    pub async fn begun(stream: &TcpStream) -> Self {
        let mut first = [0; PREFACE.len()];
        match stream.peek(&mut first).await {
            Ok(count) if count == PREFACE.len() && first == *PREFACE => Self::Http2,
            Ok(count) if count < PREFACE.len() && PREFACE.starts_with(&first[..count]) => Self::Unknown,
            // Also where it failed: whoever serves it meets that, too.
            _ => Self::Http1,
        }
    }

    /// Of a connection with TLS, by what was agreed on in its handshake (ALPN, RFC 7301).
    pub fn negotiated(protocol: Option<&[u8]>) -> Self {
        if protocol == Some(H2) { Self::Http2 } else { Self::Http1 }
    }
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
/// A connection that is served until it ends.
pub type Served = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// How each is served.
pub struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    unknown: auto::Builder<TokioExecutor>,
}

impl Protocols {
    pub fn new(timings: &Timings) -> Self {
        let mut http1 = http1::Builder::new();
        // Slow heads (and idle keep-alive connections) end after this time.
        http1.timer(TokioTimer::new()).header_read_timeout(timings.read_timeout).max_buf_size(MAX_HEAD);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(timings.keep_alive);
        let mut unknown = auto::Builder::new(TokioExecutor::new());
        unknown
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(timings.read_timeout)
            .max_buf_size(MAX_HEAD);
        unknown
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(timings.keep_alive);
        Self { http1, http2, unknown }
    }

    /// Serves a connection; after `stop` what is under way is finished and nothing new is taken.
    ///
    /// In a place of its own: as part of its task it would be there several times over, as what it is made of, too.
    pub(crate) fn serve<S>(
        &self,
        protocol: Protocol,
        stream: S,
        service: Connected,
        stop: CancellationToken,
    ) -> Served
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, service) = (TokioIo::new(stream), TowerToHyperService::new(service));
        match protocol {
            Protocol::Http1 => {
                let connection = self.http1.serve_connection(stream, service).with_upgrades();
                Box::pin(finish(connection, stop, |it| it.graceful_shutdown()))
            }
            Protocol::Http2 => {
                let connection = self.http2.serve_connection(stream, service);
                Box::pin(finish(connection, stop, |it| it.graceful_shutdown()))
            }
            Protocol::Unknown => {
                let connection = self.unknown.serve_connection_with_upgrades(stream, service).into_owned();
                Box::pin(finish(connection, stop, |it| it.graceful_shutdown()))
            }
        }
    }
}

async fn finish<C, E>(connection: C, stop: CancellationToken, end: impl FnOnce(Pin<&mut C>)) -> Outcome
where
    C: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(Into::into),
        () = stop.cancelled() => end(connection.as_mut()),
    }
    connection.await.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn each_is_told_by_how_it_begins_and_nothing_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (begin, protocol) in [
            ("GET / HTTP/1.1\r\n", Protocol::Http1),
            ("PROPFIND / HTTP/1.1\r\n", Protocol::Http1),
            ("PUT / HTTP/1.1\r\n", Protocol::Http1),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Http2),
            ("PR", Protocol::Unknown),
            ("", Protocol::Unknown),
            ("\u{16}\u{3}\u{1}", Protocol::Http1),
        ] {
            let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            client.write_all(begin.as_bytes()).await.unwrap();
            drop(client);
            assert_eq!(Protocol::begun(&server).await, protocol, "{begin:?}");
            let mut whole = String::new();
            server.read_to_string(&mut whole).await.unwrap();
            assert_eq!(whole, begin);
        }
    }

    #[test]
    fn a_handshake_decides() {
        assert_eq!(Protocol::negotiated(Some(b"h2")), Protocol::Http2);
        for protocol in [None, Some(&b"http/1.1"[..])] {
            assert_eq!(Protocol::negotiated(protocol), Protocol::Http1);
        }
    }
}
