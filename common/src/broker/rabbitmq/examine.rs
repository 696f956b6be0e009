//! A look at a RabbitMQ server from outside, for `switchyard doctor`: what it is, before anybody signs in.
//!
//! A server says what it is in the first frame it sends (`Connection.Start`, AMQP 0-9-1, section 1.4.2.1), as a table of
//! properties. Only that frame is read, with bounds on all of it: whatever listens there may send anything.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::error::unavailable;
use super::link;
use crate::broker::BrokerResult;

/// Of each step.
const PATIENCE: Duration = Duration::from_secs(5);
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel, size.
const FRAME_HEAD: usize = 7;
const MAX_FRAME: usize = 64 * 1024;

/// What a server says of itself; empty where it says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub product: String,
    /// Such as `4.1.0`.
    pub version: String,
}

/// Asks the server of a URL what it is. `None` with `amqps://`: behind TLS nobody looks.
///
/// # Errors
/// `Unavailable` when nothing answers there or not in time; `Internal` when the URL is none or what answers does not speak
/// AMQP. No message repeats the URL.
pub async fn examine(url: &str) -> BrokerResult<Option<Facts>> {
    let uri = link::parse(url)?;
    if url.starts_with("amqps:") {
        return Ok(None);
    }
    let address = (uri.authority.host.as_str(), uri.authority.port);
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(PROTOCOL_HEADER).await?;
        let mut head = [0; FRAME_HEAD];
        stream.read_exact(&mut head).await?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if head[0] != 1 || size > MAX_FRAME {
            return Ok(Vec::new());
        }
        let mut frame = vec![0; size];
        stream.read_exact(&mut frame).await?;
        Ok::<_, std::io::Error>(frame)
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(frame)) => {
            Ok(Some(start(&frame).ok_or_else(|| unavailable("what answers there is no RabbitMQ"))?))
        }
        Ok(Err(error)) => Err(unavailable(format!("could not reach RabbitMQ: {error}"))),
        Err(_) => Err(unavailable("RabbitMQ did not answer in time")),
    }
}

/// Reads class 10, method 10, two bytes of version, and the table.
fn start(frame: &[u8]) -> Option<Facts> {
    let rest = frame.strip_prefix(&[0, 10, 0, 10])?.get(2..)?;
    let mut table = sized(&mut { rest })?;
    let mut facts = Facts::default();
    while let Some((&length, rest)) = table.split_first() {
        let name = rest.get(..length.into())?;
        let (&kind, mut rest) = rest.get(length.into()..)?.split_first()?;
        match kind {
            // A long string, and a table in the table.
            b'S' | b'F' => {
                let value = sized(&mut rest)?;
                let text = || String::from_utf8_lossy(value).into_owned();
                match (kind, name) {
                    (b'S', b"product") => facts.product = text(),
                    (b'S', b"version") => facts.version = text(),
                    _ => {}
                }
            }
            b't' => rest = rest.get(1..)?,
            // RabbitMQ has no others here; how long it is nobody knows.
            _ => break,
        }
        table = rest;
    }
    Some(facts)
}

/// What four bytes of length announce; `rest` is behind it afterwards.
fn sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let value = behind.get(..length)?;
    *rest = &behind[length..];
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
    }

    fn frame() -> Vec<u8> {
        let capabilities = long(b"\x01xt\x01");
        let table = [
            &b"\x0ccapabilitiesF"[..],
            &capabilities,
            b"\x07productS",
            &long(b"RabbitMQ"),
            b"\x07versionS",
            &long(b"4.1.0"),
        ]
        .concat();
        [&b"\x00\x0a\x00\x0a\x00\x09"[..], &long(&table), &long(b"PLAIN"), &long(b"en_US")].concat()
    }

    #[test]
    fn a_server_says_what_it_is() {
        let facts = Facts { product: "RabbitMQ".into(), version: "4.1.0".into() };
        assert_eq!(start(&frame()), Some(facts));
    }

    #[test]
    fn whatever_is_cut_off_or_longer_than_it_is_ends_nothing() {
        let whole = frame();
        for end in 0..whole.len() {
            let _ = start(&whole[..end]);
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7F, 0xFF] {
                let mut other = whole.clone();
                other[at] = byte;
                let _ = start(&other);
            }
        }
        assert_eq!(start(b"HTTP/1.1 400 Bad Request"), None);
        assert_eq!(start(b""), None);
    }
}
