//! TLS of a listener that terminates it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::config::tls::{Authority, CertificateFiles, ClientCertificate, ListenerTls};
use crate::net::client_hello::canonical_name;
use crate::net::connection::{Certificate, Tls};
use crate::net::stream::Stream;
use crate::net::tls::files::{FileProblem, contents};
use crate::net::tls::renewal::{Renewal, Trouble, Trust, now, out_of_date, out_of_force};
use crate::net::tls::tickets::Tickets;
use crate::net::tls::{H2, HTTP_1_1, describe, provider, version};

/// TLS of a listener.
pub struct ServerTls {
    /// The configuration that it was made from.
    pub config: ListenerTls,
    /// What is wrong with its files now; what they held before is in force.
    pub troubles: Vec<Trouble>,
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
    trust: Option<Arc<Trust>>,
    tickets: Arc<Tickets>,
    /// What the files held.
    contents: Vec<Option<Vec<u8>>>,
    /// When to look at them again even though they are the same.
    again: Option<i64>,
    http: bool,
}

impl ServerTls {
    /// TLS as it is configured. `http`: whether HTTP is spoken inside. `before`: what was made of the same configuration,
    /// for what its files are of no use for now.
    ///
    /// # Errors
    /// Every file that is wrong, when there is nothing before.
    pub fn new(config: &ListenerTls, http: bool, before: Option<&Self>) -> Result<Self, Vec<FileProblem>> {
        let before = before.filter(|before| before.config == *config && before.http == http);
        // Before they are read: what changes meanwhile is then seen as a change.
        let contents = contents(files_of(config));
        let mut renewal = Renewal::default();
        let mut keys = Vec::new();
        for (number, files) in config.certificates.iter().enumerate() {
            let known = before.and_then(|before| before.certificates.all.get(number));
            keys.extend(renewal.pair(&files.cert, &files.key, known.map(|(key, _)| key)));
        }
        let asks = config.client_certificate.value != ClientCertificate::None;
        let known = before.and_then(|before| before.trust.as_ref());
        let ca = config.client_ca.as_ref().filter(|_| asks);
        let trust = ca.and_then(|ca| renewal.trust(ca, config.client_crl.as_ref(), known));
        if before.is_none() && !renewal.problems.is_empty() {
            return Err(renewal.problems);
        }
        let place = config.client_certificate.place.clone();
        let broken = |error: &dyn std::fmt::Display| {
            vec![(place.clone(), format!("TLS cannot be set up with this: {error}; check the file"))]
        };
        // Sessions begin anew when it has changed who is trusted.
        let kept = before.filter(|before| same(before.trust.as_ref(), trust.as_ref()));
        let tickets = match kept {
            Some(before) => Arc::clone(&before.tickets),
            None => Tickets::new().map_err(|error| broken(&error))?,
        };
        let certificates = Arc::new(Certificates::new(keys));
        let server = rustls_config(config, trust.as_deref(), &certificates);
        let mut server = server.map_err(|error| broken(&*error))?;
        if http {
            server.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
        }
        server.ticketer = Arc::clone(&tickets) as Arc<_>;
        // Tickets are the only way to resume a session.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            config: config.clone(),
            troubles: renewal.troubles(before.map(|before| before.troubles.as_slice()).unwrap_or_default()),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            certificates,
            trust,
            tickets,
            contents,
            again: renewal.again,
            http,
        })
    }

    /// Whether this is what the configuration and its files would give.
    pub fn is_current(&self, config: &ListenerTls, http: bool) -> bool {
        self.config == *config
            && self.http == http
            && self.again.is_none_or(|again| again > now())
            && self.contents == contents(files_of(config))
    }

    /// What the files hold that it was made of.
    pub fn contents(&self) -> Vec<Option<Vec<u8>>> {
        contents(files_of(&self.config))
    }

    /// Whether the other one shows and trusts the very same.
    pub fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.certificates.all.iter().zip(&other.certificates.all);
        pairs.all(|((key, _), (other, _))| Arc::ptr_eq(key, other))
            && same(self.trust.as_ref(), other.trust.as_ref())
    }

    /// What is in force, and not valid now.
    pub fn faults(&self) -> Vec<String> {
        let now = now();
        let pairs = self.certificates();
        let certificates = pairs.filter_map(|(files, known)| out_of_force(known, &files.cert.value, now));
        let revoked = self.trust.as_ref().and_then(|trust| trust.revoked.as_ref());
        let list = revoked.zip(self.config.client_crl.as_ref());
        certificates.chain(list.and_then(|(list, file)| out_of_date(list, &file.value, now))).collect()
    }

    /// The listener's certificates, and the files that each came from.
    pub fn certificates(&self) -> impl Iterator<Item = (&CertificateFiles, &Certificate)> {
        let files = self.config.certificates.iter().map(|files| &files.value);
        files.zip(self.certificates.all.iter().map(|(_, described)| &**described))
    }

    /// Why a client that has shown this chain once would be refused now, when that is for the time that has passed.
    fn outlived(&self, chain: &[CertificateDer<'_>]) -> Option<&'static str> {
        let now = now();
        let expired = |der| describe(der).is_some_and(|known| known.validity.1 < now);
        if chain.iter().any(|der| expired(der)) {
            return Some("the client's certificate has expired since its session began");
        }
        let revoked = self.trust.as_ref()?.revoked.as_ref()?;
        let late = !chain.is_empty() && revoked.next_update <= now;
        late.then_some("a revocation list is out of date since the client's session began")
    }

    /// Whether it trusts the same clients, by the very same files, as another.
    pub fn trusts_as(&self, other: &Self) -> bool {
        same(self.trust.as_ref(), other.trust.as_ref())
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
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let chain = session.peer_certificates().unwrap_or_default();
        if let Some(why) = self.outlived(chain).filter(|_| resumed) {
            // Who has a ticket of that time is to show a certificate once more, and not to be refused again and again.
            self.tickets.forget().map_err(io::Error::other)?;
            return Err(io::Error::other(why));
        }
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

/// The files that TLS of a listener is made of.
pub fn files_of(config: &ListenerTls) -> impl Iterator<Item = &Path> {
    let pairs = config.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    pairs.chain(&config.client_ca).chain(&config.client_crl).map(|path| path.value.as_path())
}

/// Whether both are the very same.
fn same(one: Option<&Arc<Trust>>, other: Option<&Arc<Trust>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// What rustls is to do: whom it shows which certificate, and whom it asks for one.
fn rustls_config(
    config: &ListenerTls,
    trust: Option<&Trust>,
    certificates: &Arc<Certificates>,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let provider = provider();
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match trust {
        None => builder.with_no_client_auth(),
        Some(trust) => {
            let roots = Arc::clone(&trust.roots);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if let Some(revoked) = &trust.revoked {
                verifier = verifier.with_crls(revoked.lists.iter().cloned()).enforce_revocation_expiration();
            }
            let verifier = match config.client_certificate.value {
                ClientCertificate::Optional => verifier.allow_unauthenticated(),
                ClientCertificate::None | ClientCertificate::Required => verifier,
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    Ok(builder.with_cert_resolver(Arc::clone(certificates) as Arc<_>))
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
