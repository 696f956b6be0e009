//! Receivers of webhooks by HTTPS: told when their certificate is one that the machine trusts, and not otherwise.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::deployment::{KEY_ID, KEY_SECRET};
use support::process::{ON_LOOPBACK, Process};
use support::receiver::Receiver;
use support::{Scrape, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::authority::{authority, issue};

/// Ends TLS in front of a server, as a proxy does. Ended with the returned set.
async fn in_front_of(server: SocketAddr, certificate: &Path, key: &Path) -> (SocketAddr, JoinSet<()>) {
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                // Whoever does not trust us ends the handshake.
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (address, tasks)
}

/// A server that tells this receiver, on a machine that trusts this authority; and a session of it.
async fn session_on(name: &str, receiver: SocketAddr, trusted: &Path) -> (Process, String, String) {
    let url = format!("https://localhost:{}/hook", receiver.port());
    let arguments = [&ON_LOOPBACK[..], &["--webhook-urls", &url]].concat();
    let keys = format!("{KEY_ID}:{KEY_SECRET}");
    // What OpenSSL reads, and all that follows it.
    let trusts = [
        ("SSL_CERT_FILE", trusted.to_str().unwrap()),
        ("SWITCHYARD_API_KEYS", keys.as_str()),
        ("SWITCHYARD_LOG", "info,rest_api=debug"),
    ];
    let mut process = Process::start(name, &arguments, &trusts);
    let base = process.url();
    let request = reqwest::Client::new().post(format!("{base}/v1/sessions"));
    let reply = request.basic_auth(KEY_ID, Some(KEY_SECRET)).json(&json!({})).send().await.unwrap();
    assert_eq!(reply.status(), 201);
    let created: Value = reply.json().await.unwrap();
    (process, base, created["session"]["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_by_https_is_told_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let ours = authority();
    issue(&ours, &path("receiver.crt"), &path("receiver.key"));
    std::fs::write(path("ours.pem"), ours.pem()).unwrap();
    std::fs::write(path("another.pem"), authority().pem()).unwrap();
    let receiver = Receiver::start().await;
    let (address, _front) =
        in_front_of(receiver.address(), &path("receiver.crt"), &path("receiver.key")).await;

    let (_process, _, session) = session_on("webhooks-trusting", address, &path("ours.pem")).await;
    receiver.takes(&session, "room_started").await;

    let (process, base, session) = session_on("webhooks-wary", address, &path("another.pem")).await;
    eventually("the try has failed", || async {
        let scrape = Scrape::of(std::slice::from_ref(&base)).await;
        let failed = scrape.sum("switchyard_api_webhooks_total", &[("outcome", "failed")]);
        if failed > 0.0 { Ok(()) } else { Err(process.log()) }
    })
    .await;
    eventually("the reason is told", || async {
        let log = process.log();
        let told = log.lines().find(|line| line.contains("a webhook failed")).ok_or_else(|| log.clone())?;
        if told.contains("certificate") { Ok(()) } else { Err(told.to_owned()) }
    })
    .await;
    assert!(receiver.came(&session).is_empty(), "nothing is said before the certificate was checked");
}
