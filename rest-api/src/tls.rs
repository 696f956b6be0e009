//! TLS in this process: the certificate, its renewal without a restart, and handshakes.
//!
//! The files are read every few seconds (their text is compared, so it does not matter how they were replaced). A pair
//! that is new and fits replaces the old one for new connections; open ones go on. A pair that does not, because it was
//! caught half-written or is wrong, leaves the old one in use, and says so in the log and in a metric.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The first byte of a TLS record that begins a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Told to whoever speaks plain HTTP to the TLS port.
const PLAIN_HTTP_PROBLEM: &str = r#"{"type":"about:blank","title":"Upgrade Required","status":426,"code":"tls_required","detail":"this port speaks https"}"#;

/// Where certificate chain and private key are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate first, then what leads to its root.
    pub certificate: PathBuf,
    /// PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Why a pair of files cannot be used. Names files and never shows what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} cannot be read: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} holds no PEM certificate")]
    NoCertificate { path: String },
    #[error("{path} holds a certificate that cannot be read")]
    BadCertificate { path: String },
    #[error("{path} holds no PEM private key")]
    NoKey { path: String },
    #[error("certificate and key do not fit: {0}")]
    Mismatch(rustls::Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// A certificate in use, and what handshakes need.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    acceptor: TlsAcceptor,
    current: Arc<Current>,
}

struct Current(RwLock<Arc<CertifiedKey>>);

impl Tls {
    /// Reads the files and checks that they fit.
    ///
    /// # Errors
    /// Every one is a mistake in the configuration.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let text = Text::read(&files)?;
        let pair = text.parse(&files)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(pair.certified))));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { files, acceptor, current })
    }

    /// Looks at the files until `stop`.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        // The first look finds what was loaded at the start, and only says when that expires.
        let mut seen: Option<Text> = None;
        let mut said: Option<String> = None;
        let mut every = tokio::time::interval(LOOK_INTERVAL);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let files = self.files.clone();
            let known = seen.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let text = Text::read(&files)?;
                if known.as_ref() == Some(&text) {
                    return Ok(None);
                }
                text.parse(&files).map(|pair| Some((text, pair)))
            });
            match looked.await {
                Ok(Ok(None)) => said = None,
                Ok(Ok(Some((text, pair)))) => {
                    self.take(pair, seen.is_some());
                    (seen, said) = (Some(text), None);
                }
                Ok(Err(error)) => {
                    let error = error.to_string();
                    // Once for each mistake, not every two seconds.
                    if said.as_ref() != Some(&error) {
                        metrics::certificate("refused");
                        tracing::warn!(%error, "the new certificate is not used: the old one stays");
                        said = Some(error);
                    }
                }
                Err(_) => {}
            }
        }
    }

    fn take(&self, pair: Pair, announce: bool) {
        let mut current = self.current.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = current.cert != pair.certified.cert;
        *current = Arc::new(pair.certified);
        drop(current);
        metrics::certificate_expires(pair.expires);
        if announce || changed {
            metrics::certificate("loaded");
            tracing::info!(expires = pair.expires, "a new certificate is in use");
        }
    }

    /// Makes a connection one with TLS. `None`: it is none; why is counted. Takes as long as the client: bound it.
    pub async fn accept(&self, mut stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => {}
            Ok(1) => {
                metrics::handshake_failed("not_tls");
                // Who begins with a letter most likely speaks HTTP and gets an answer it can read.
                if first[0].is_ascii_alphabetic() {
                    let _ = stream.write_all(plain_http_answer().as_bytes()).await;
                    let _ = stream.shutdown().await;
                    drain(&mut stream).await;
                }
                return None;
            }
            _ => {
                metrics::handshake_failed("closed");
                return None;
            }
        }
        match self.acceptor.accept(stream).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                metrics::handshake_failed("failed");
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }
}

/// 426 is the status for it (RFC 9110, section 15.5.22; RFC 2817, section 4.2).
fn plain_http_answer() -> String {
    format!(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3, HTTP/1.1\r\nConnection: Upgrade, close\r\n\
         Content-Type: application/problem+json\r\nContent-Length: {}\r\n\r\n{PLAIN_HTTP_PROBLEM}",
        PLAIN_HTTP_PROBLEM.len()
    )
}

/// Reads a little of what the other side still sends: closing before would reset the connection, and the answer would be
/// lost with it.
async fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    for _ in 0..4 {
        match tokio::io::AsyncReadExt::read(stream, &mut buffer).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Text {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// What can be used of it.
struct Pair {
    certified: CertifiedKey,
    /// In seconds since 1970.
    expires: i64,
}

impl Text {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.display().to_string(), source })
        };
        Ok(Self { certificate: read(&files.certificate)?, key: read(&files.key)? })
    }

    fn parse(&self, files: &TlsFiles) -> Result<Pair, TlsError> {
        let path = || files.certificate.display().to_string();
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::BadCertificate { path: path() })?;
        let leaf = chain.first().ok_or_else(|| TlsError::NoCertificate { path: path() })?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_| TlsError::BadCertificate { path: path() })?;
        let expires = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::NoKey { path: files.key.display().to_string() })?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Mismatch)?;
        Ok(Pair { certified, expires })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn pair(folder: &Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn only_a_pair_that_fits_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (pair(folder.path(), "one"), pair(folder.path(), "two"));
        assert!(Tls::load(one.clone()).is_ok());
        let mixed = TlsFiles { certificate: one.certificate.clone(), key: two.key };
        assert!(matches!(Tls::load(mixed), Err(TlsError::Mismatch(_))));
        let swapped = TlsFiles { certificate: one.key.clone(), key: one.certificate.clone() };
        assert!(matches!(Tls::load(swapped), Err(TlsError::NoCertificate { .. })));
        let without_key = TlsFiles { certificate: one.certificate.clone(), key: one.certificate.clone() };
        assert!(matches!(Tls::load(without_key), Err(TlsError::NoKey { .. })));
        let absent = TlsFiles { certificate: folder.path().join("none"), key: one.key };
        assert!(matches!(Tls::load(absent), Err(TlsError::Read { .. })));
    }

    #[test]
    fn the_answer_to_plain_http_is_a_problem() {
        let answer = plain_http_answer();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.lines().all(|line| line.trim() == line && !line.is_empty()), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((body["code"].as_str(), body["status"].as_u64()), (Some("tls_required"), Some(426)));
    }
}
