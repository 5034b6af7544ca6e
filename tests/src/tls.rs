//! TLS for tests: an authority, and what speaks in its name.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use xtask::certs::{Authority, Certificate};

/// The authority of this run.
///
/// # Panics
/// When no key can be made.
pub fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("Weir test authority").expect("a key"))
}

/// A certificate of the authority.
///
/// # Panics
/// When a name is none.
pub fn certificate(names: &[&str]) -> Certificate {
    authority().sign(names.first().copied().unwrap_or("test"), names).expect("good names")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn parts(certificate: &Certificate) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(certificate.cert.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("PEM");
    (chain, PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("PEM"))
}

/// The certificates of an authority.
///
/// # Panics
/// When they are none.
pub fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(cert.expect("PEM")).expect("a certificate");
    }
    roots
}

/// A client that trusts the authority, and shows a certificate when it has one.
///
/// # Panics
/// When the certificate is none.
pub fn client_config(certificate: Option<&Certificate>, alpn: &[&str]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots(authority().pem()));
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let (chain, key) = parts(certificate);
            builder.with_client_auth_cert(chain, key).expect("key and certificate match")
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// A server with a certificate of the authority.
///
/// # Panics
/// When the certificate is none.
pub fn server_config(certificate: &Certificate, client_required: bool, alpn: &[&str]) -> ServerConfig {
    let (chain, key) = parts(certificate);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = if client_required {
        let roots = Arc::new(roots(authority().pem()));
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider());
        builder.with_client_cert_verifier(verifier.build().expect("roots"))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).expect("key and certificate match");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// A TLS connection to `address` that asks for `name`.
///
/// # Errors
/// When it cannot be made.
///
/// # Panics
/// When the name is none.
pub async fn connect(
    address: std::net::SocketAddr,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    handshake(socket, name, config).await
}

/// A TLS handshake over a connection.
///
/// # Errors
/// When it fails.
///
/// # Panics
/// When the name is none.
pub async fn handshake(
    socket: TcpStream,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a server name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// Accepts TLS over a connection.
///
/// # Errors
/// When the handshake fails.
pub async fn accept(
    socket: TcpStream,
    config: ServerConfig,
) -> std::io::Result<server::TlsStream<TcpStream>> {
    TlsAcceptor::from(Arc::new(config)).accept(socket).await
}
