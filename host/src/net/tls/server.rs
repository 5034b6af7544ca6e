//! TLS of a listener that terminates it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::config::tls::{Authority, CertificateFiles, ClientCertificate, ListenerTls};
use crate::net::client_hello::canonical_name;
use crate::net::connection::{Certificate, Tls};
use crate::net::stream::Stream;
use crate::net::tls::files::{FileProblem, authorities, certified_key, contents};
use crate::net::tls::{H2, HTTP_1_1, describe, provider, version};

/// TLS of a listener.
pub struct ServerTls {
    /// The configuration that it was made from.
    pub config: ListenerTls,
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
    /// What the files held.
    contents: Vec<Option<Vec<u8>>>,
    http: bool,
}

impl ServerTls {
    /// TLS as it is configured. `http`: whether HTTP is spoken inside.
    ///
    /// # Errors
    /// Every file that is wrong.
    pub fn new(config: &ListenerTls, http: bool) -> Result<Self, Vec<FileProblem>> {
        let mut problems = Vec::new();
        let mut keys = Vec::new();
        for files in &config.certificates {
            match certified_key(&files.cert, &files.key) {
                Ok(key) => keys.push(key),
                Err(wrong) => problems.extend(wrong),
            }
        }
        let provider = provider();
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let asks = config.client_certificate.value != ClientCertificate::None;
        let roots = match config.client_ca.as_ref().filter(|_| asks).map(authorities).transpose() {
            Ok(roots) => roots,
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let place = config.client_certificate.place.clone();
        let broken = |error: &dyn std::fmt::Display| {
            vec![(place.clone(), format!("TLS cannot be set up with this: {error}; check the file"))]
        };
        let builder = builder.map_err(|error| broken(&error))?;
        let builder = match roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match config.client_certificate.value {
                    ClientCertificate::Optional => verifier.allow_unauthenticated(),
                    ClientCertificate::None | ClientCertificate::Required => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| broken(&error))?)
            }
        };
        let certificates = Arc::new(Certificates::new(keys));
        let mut server = builder.with_cert_resolver(Arc::clone(&certificates) as Arc<_>);
        if http {
            server.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
        }
        // Tickets keep no state here, and their keys rotate by themselves.
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| broken(&error))?;
        Ok(Self {
            config: config.clone(),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            certificates,
            contents: contents(files_of(config)),
            http,
        })
    }

    /// Whether this is what the configuration and its files would give.
    pub fn is_current(&self, config: &ListenerTls, http: bool) -> bool {
        self.config == *config && self.http == http && self.contents == contents(files_of(config))
    }

    /// The listener's certificates, and the files that each came from.
    pub fn certificates(&self) -> impl Iterator<Item = (&CertificateFiles, &Certificate)> {
        let files = self.config.certificates.iter().map(|files| &files.value);
        files.zip(self.certificates.all.iter().map(|(_, described)| &**described))
    }

    /// Shakes hands. What is known of the peer comes from the verified chain alone.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<(Stream, Tls)> {
        let stream = self.acceptor.accept(socket).await?;
        let (_, session) = stream.get_ref();
        let server_name = session.server_name().and_then(canonical_name);
        let peer = session.peer_certificates().and_then(|chain| describe(chain.first()?));
        let tls = Tls {
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            version: version(session.protocol_version()),
            peer: peer.map(Arc::new),
            local: self.certificates.find(server_name.as_deref()).map(|(_, described)| Arc::clone(described)),
            server_name: server_name.map(Arc::from),
            bound: self.config.client_certificate.value != ClientCertificate::None
                && self.config.authority == Authority::Certified,
        };
        Ok((Stream::Tls(Box::new(stream.into())), tls))
    }
}

fn files_of(config: &ListenerTls) -> impl Iterator<Item = &Path> {
    let pairs = config.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    pairs.chain(&config.client_ca).map(|path| path.value.as_path())
}

type Known = (Arc<CertifiedKey>, Arc<Certificate>);

/// The certificates of a listener, by the names that they are for.
#[derive(Debug)]
struct Certificates {
    all: Vec<Known>,
    exact: HashMap<String, usize>,
    /// By what follows the asterisk, which begins with a dot.
    wildcard: HashMap<String, usize>,
}

impl Certificates {
    fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut certificates = Self { all: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        for key in keys {
            let described = key.cert.first().and_then(|der| describe(der)).unwrap_or_default();
            let number = certificates.all.len();
            // The first certificate for a name counts.
            for name in described.dns_sans.iter().map(|name| name.to_ascii_lowercase()) {
                match name.strip_prefix('*') {
                    Some(suffix) => certificates.wildcard.entry(suffix.to_owned()).or_insert(number),
                    None => certificates.exact.entry(name).or_insert(number),
                };
            }
            certificates.all.push((key, Arc::new(described)));
        }
        certificates
    }

    /// The certificate for a name; the first, for clients that name none or one that nobody has.
    fn find(&self, name: Option<&str>) -> Option<&Known> {
        let exact = name.and_then(|name| self.exact.get(name));
        let number = exact.or_else(|| {
            let name = name?;
            self.wildcard.get(name.get(name.find('.')?..)?)
        });
        self.all.get(number.copied().unwrap_or(0))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(canonical_name);
        self.find(name.as_deref()).map(|(key, _)| Arc::clone(key))
    }
}
