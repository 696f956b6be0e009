//! HTTPS and WSS by the binary itself: with a certificate of a private authority, renewed while it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use support::deployment::{KEY_ID, KEY_SECRET};
use support::eventually::eventually_within;
use support::process::{ON_LOOPBACK, Process, run_to_end};
use support::{eventually, patience};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::authority::{Issuer, authority, issue};

/// A private authority, and a server that has its files from it.
struct Served {
    _folder: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
    authority: Issuer,
    process: Process,
    address: String,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let authority = authority();
        issue(&authority, &certificate, &key);
        let keys = format!("{KEY_ID}:{KEY_SECRET}");
        let files = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        let arguments = [&ON_LOOPBACK[..], &files].concat();
        let environment = [("SWITCHYARD_API_KEYS", keys.as_str()), ("SWITCHYARD_LOG", "info,rest_api=debug")];
        let mut process = Process::start("tls", &arguments, &environment);
        let url = process.url();
        let address = url.strip_prefix("https://").expect("the start line says https").to_owned();
        Self { _folder: folder, certificate, key, authority, process, address }
    }

    fn trust(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.as_ref().der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A connection whose certificate was checked.
    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(self.trust())).connect(name, stream).await.unwrap()
    }

    async fn presented(&self) -> CertificateDer<'static> {
        let stream = self.connect().await;
        let (_, connection) = stream.get_ref();
        connection.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// A request by HTTP/2 (`h2`) or HTTP/1.1.
    async fn ask(&self, h2: bool, method: &str, path: &str, body: &Value) -> http::Response<Value> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(self.trust()).https_only();
        let connector = if h2 { connector.enable_http2().build() } else { connector.enable_http1().build() };
        let client = Client::builder(TokioExecutor::new()).build::<_, Full<bytes::Bytes>>(connector);
        let basic = base64(&format!("{KEY_ID}:{KEY_SECRET}"));
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address))
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))
            .unwrap();
        let (parts, body) = client.request(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        http::Response::from_parts(parts, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Waits until that many handshakes failed for this reason: they are counted a moment after their connection ends.
    async fn counts(&self, reason: &str, times: f64) {
        let line = format!("switchyard_api_handshakes_failed_total{{reason=\"{reason}\"}}");
        eventually(&line, || async {
            let counted = figure(&self.metrics().await, &line);
            if counted == Some(times) { Ok(()) } else { Err(format!("{counted:?}, not {times}")) }
        })
        .await;
    }

    async fn metrics(&self) -> String {
        let mut stream = self.connect().await;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The value of a line of `/metrics`.
fn figure(metrics: &str, line: &str) -> Option<f64> {
    metrics.lines().find_map(|it| it.strip_prefix(line)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_is_served_by_both_versions_of_http_and_browsers_are_told_to_stay_with_it() {
    let served = Served::start();
    for (h2, version) in [(false, http::Version::HTTP_11), (true, http::Version::HTTP_2)] {
        let reply = served.ask(h2, "POST", "/v1/sessions", &json!({})).await;
        assert_eq!((reply.status().as_u16(), reply.version()), (201, version), "{reply:?}");
        assert_eq!(reply.headers()["strict-transport-security"], "max-age=31536000");
        let link = reply.body()["join_link"].as_str().unwrap();
        assert!(link.starts_with(&format!("https://{}/#session=", served.address)), "{link}");
    }
    let health = run_to_end(&["health", &served.address], &[]);
    assert!(health.status.success(), "{health:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_taken_while_a_websocket_stays_open_and_a_bad_one_is_not() {
    let served = Served::start();
    let created = served.ask(false, "POST", "/v1/sessions", &json!({})).await.into_body();
    let session = created["session"]["id"].as_str().unwrap();
    let path = format!("/v1/sessions/{session}/participants");
    let joined = served.ask(false, "POST", &path, &json!({})).await.into_body();
    let participant = joined["participant"]["id"].as_str().unwrap_or_else(|| panic!("{joined}"));
    let token = joined["token"].as_str().unwrap();
    let url = format!(
        "wss://{}/v1/sessions/{session}/participants/{participant}/events/ws?access_token={token}",
        served.address
    );
    let request = url.into_client_request().unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, served.connect().await).await.unwrap();

    let first = served.presented().await;
    let second = issue(&served.authority, &served.certificate, &served.key);
    let looked = || async {
        let presented = served.presented().await;
        if presented.as_ref() == second { Ok(()) } else { Err("still the old certificate".to_owned()) }
    };
    eventually_within(patience(20.0), "the new certificate in use", looked).await;
    assert_ne!(first.as_ref(), second);

    // A certificate without its key, as when only half of a pair has been written.
    let elsewhere = served.key.with_extension("other");
    issue(&served.authority, &served.certificate, &elsewhere);
    let refused = || async {
        let metrics = served.metrics().await;
        match figure(&metrics, "switchyard_api_certificates_total{outcome=\"refused\"}") {
            Some(times) if times >= 1.0 => Ok(metrics),
            other => Err(format!("refused: {other:?}")),
        }
    };
    let metrics = eventually_within(patience(20.0), "the bad pair noticed", refused).await;
    assert_eq!(served.presented().await.as_ref(), second, "the last good one stays in use");
    assert!(served.process.log().contains("the old one stays"), "{}", served.process.log());
    assert_eq!(figure(&metrics, "switchyard_api_certificates_total{outcome=\"loaded\"}"), Some(1.0));
    let expires = figure(&metrics, "switchyard_api_certificate_expires_seconds").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(expires > now, "{expires}");

    // The connection of before both still carries what is said on it.
    let said = b"still there".to_vec();
    socket.send(Message::Ping(said.clone().into())).await.unwrap();
    let answered = async {
        while let Some(message) = socket.next().await {
            if matches!(message.unwrap(), Message::Pong(echo) if echo == said) {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(patience(20.0), answered).await.unwrap(), "the socket was closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_tls_is_told_or_dropped_and_harms_nobody() {
    let served = Served::start();
    let mut plain = TcpStream::connect(&served.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len()))
            || head.ends_with(&format!("Content-Length: {}", body.len())),
        "{answer}"
    );
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["code"], "tls_required");

    // A record header that promises a handshake, and rubbish in it.
    for rubbish in
        [&[0_u8; 64][..], &[22, 3, 1, 0, 60, 9, 9, 9, 9, 9, 9, 9][..], &[22, 255, 255, 255, 255][..]]
    {
        let mut stream = TcpStream::connect(&served.address).await.unwrap();
        stream.write_all(rubbish).await.unwrap();
        stream.shutdown().await.unwrap();
        let closed = tokio::time::timeout(patience(10.0), async {
            let mut buffer = [0; 256];
            while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {}
        });
        closed.await.expect("the server closes a connection that makes no sense");
    }
    // Who connects and says nothing holds nobody up.
    let _silent = TcpStream::connect(&served.address).await.unwrap();
    let reply = tokio::time::timeout(patience(10.0), served.ask(true, "GET", "/readyz", &Value::Null)).await;
    assert_eq!(reply.unwrap().status(), 200);
    served.counts("not_tls", 2.0).await;
    served.counts("failed", 2.0).await;
}

#[test]
fn a_pair_that_does_not_fit_is_bad_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let path = |name: &str| folder.path().join(name);
    issue(&authority, &path("a.crt"), &path("a.key"));
    issue(&authority, &path("b.crt"), &path("b.key"));
    let (certificate, key) = (path("a.crt"), path("b.key"));
    let arguments = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let ended = run_to_end(&arguments, &[]);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains("tls_certificate") && ended.stderr.contains("do not fit"), "{ended:?}");
    assert!(!ended.stderr.contains("PRIVATE"), "{ended:?}");
}

/// The handshake's bound is that of a request's head: 20 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_never_ends_is_cut_off() {
    let served = Served::start();
    let mut stream = TcpStream::connect(&served.address).await.unwrap();
    stream.write_all(&[22, 3, 1]).await.unwrap();
    let mut buffer = [0; 16];
    let read = tokio::time::timeout(patience(40.0) + Duration::from_secs(5), stream.read(&mut buffer));
    assert!(matches!(read.await.expect("the server cuts it off"), Ok(0) | Err(_)));
    served.counts("timed_out", 1.0).await;
}
