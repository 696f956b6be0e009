//! Both versions of HTTP on the port without TLS, however the first bytes come.

use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use support::patience;
use support::process::{ON_LOOPBACK, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The client's preface, with an empty SETTINGS frame (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS: u8 = 4;

/// Sends something byte by byte, each in a packet of its own, and reads the first `length` bytes of the answer.
async fn bit_by_bit(address: &str, request: &[u8], length: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in request {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = vec![0; length];
    tokio::time::timeout(patience(10.0), stream.read_exact(&mut answer)).await.expect("in time").unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_are_served_without_tls_also_bit_by_bit() {
    let mut process = Process::start("versions", &ON_LOOPBACK, &[]);
    let url = process.url();
    for (h2, version) in [(true, http::Version::HTTP_2), (false, http::Version::HTTP_11)] {
        let client = Client::builder(TokioExecutor::new()).http2_only(h2).build_http::<Empty<bytes::Bytes>>();
        let answer = client.get(format!("{url}/healthz").parse().unwrap()).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    }
    let address = url.strip_prefix("http://").unwrap();
    let answer = bit_by_bit(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 12).await;
    assert_eq!(answer, b"HTTP/1.1 200");
    // A method that begins as the preface does.
    let answer = bit_by_bit(address, b"PROPFIND /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 12).await;
    assert_eq!(answer, b"HTTP/1.1 405");
    let answer = bit_by_bit(address, PREFACE, 9).await;
    assert_eq!(answer[3], SETTINGS, "{answer:?}");
}
