//! `switchyard health`: asks the part that runs on this machine whether it lives; for container health checks, whose
//! image has neither a shell nor curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// Of each step: connecting, writing, reading.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why no part answered well.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("nothing answers at {0:?}")]
    Silent(Vec<SocketAddr>),
    #[error("{address} answers {answer:?}")]
    Unhealthy { address: SocketAddr, answer: String },
    #[error("{address} takes connections but does not answer: {source}")]
    Hanging { address: SocketAddr, source: std::io::Error },
}

/// Asks `/healthz` of the first address at which something listens.
///
/// # Errors
/// [`HealthError::Silent`] when nothing does, [`HealthError::Unhealthy`] for any answer but 200,
/// [`HealthError::Hanging`] for none.
pub fn check(addresses: &[SocketAddr]) -> Result<(), HealthError> {
    for &address in addresses {
        // A refused or silent address belongs to a part that does not run here.
        let Ok(stream) = connect(address) else { continue };
        let hanging = |source| HealthError::Hanging { address, source };
        let mut answer = ask(stream, address).map_err(hanging)?;
        // That is how a port that speaks TLS answers plain HTTP.
        if status(&answer) == Some("426") {
            let stream = connect(address).and_then(tls).map_err(hanging)?;
            answer = ask(stream, address).map_err(hanging)?;
        }
        if status(&answer) == Some("200") {
            return Ok(());
        }
        return Err(HealthError::Unhealthy { address, answer });
    }
    Err(HealthError::Silent(addresses.to_vec()))
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn status(answer: &str) -> Option<&str> {
    answer.split_whitespace().nth(1)
}

/// The status line of the answer.
fn ask(mut stream: impl Read + Write, address: SocketAddr) -> std::io::Result<String> {
    // In one piece: a server that answers before it has read everything and closes would reset the connection, and the
    // answer would be lost with it.
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 64];
    let mut length = 0;
    while length < head.len() && !head[..length].contains(&b'\n') {
        match stream.read(&mut head[length..])? {
            0 => break,
            read => length += read,
        }
    }
    let text = String::from_utf8_lossy(&head[..length]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// TLS whoever answers: the certificate is for the server's public name, and nothing secret is said or believed here.
fn tls(stream: TcpStream) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let name = ServerName::from(stream.peer_addr()?.ip());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
