//! TLS of a listener that terminates it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::config::tls::{Authority, CertificateFiles, ClientCertificate, ListenerTls};
use crate::net::client_hello::canonical_name;
use crate::net::connection::{Certificate, Tls};
use crate::net::stream::Stream;
use crate::net::tls::files::{FileProblem, Kind, Print, Use};
use crate::net::tls::lists::Revoked;
use crate::net::tls::renewal::{LastGood, Renewal, Sources, Trouble, Trust, now, out_of_force};
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
    /// Judges certificates of clients; none where they are not asked.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    tickets: Arc<Tickets>,
    /// What the files are known by that it was made of.
    prints: Vec<Print>,
    /// When to look at them again even though they are the same.
    again: Option<i64>,
    http: bool,
}

impl ServerTls {
    /// TLS as it is configured, made of what files hold now, or held before where they are of no use now. `http`: whether
    /// HTTP is spoken inside. `before`: what the listener had, whose sessions may go on.
    ///
    /// # Errors
    /// Every file that is wrong, and of which nothing good is known from before.
    pub fn new(
        config: &ListenerTls,
        http: bool,
        before: Option<&Self>,
        sources: &mut Sources,
    ) -> Result<Self, Vec<FileProblem>> {
        let prints = sources.files.prints(files_of(config));
        let mut renewal = Renewal::new(sources);
        let pairs = config.certificates.iter();
        let keys = pairs.filter_map(|files| renewal.pair(&files.cert, &files.key)).collect();
        let asks = config.client_certificate.value != ClientCertificate::None;
        let known = before.and_then(|before| before.trust.as_ref());
        let ca = config.client_ca.as_ref().filter(|_| asks);
        let trust = ca.and_then(|ca| renewal.trust(ca, config.client_crl.as_ref(), known));
        if !renewal.problems.is_empty() {
            return Err(renewal.problems);
        }
        let place = config.client_certificate.place.clone();
        let broken = |error: &dyn std::fmt::Display| {
            vec![(place.clone(), format!("TLS cannot be set up with this: {error}; check the file"))]
        };
        // Sessions begin anew when it has changed who is trusted, and who has to show a certificate.
        let kept = before.filter(|before| {
            before.config.client_certificate == config.client_certificate
                && same(before.trust.as_ref(), trust.as_ref())
        });
        let tickets = match kept {
            Some(before) => Arc::clone(&before.tickets),
            None => Tickets::new().map_err(|error| broken(&error))?,
        };
        let certificates = Arc::new(Certificates::new(keys));
        let verifier = trust.as_ref().map(|trust| verifier(config, trust)).transpose();
        let verifier = verifier.map_err(|error| broken(&error))?;
        let server = rustls_config(verifier.as_ref(), &certificates);
        let mut server = server.map_err(|error| broken(&error))?;
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
            verifier,
            tickets,
            prints,
            again: renewal.again,
            http,
        })
    }

    /// Whether this is what the configuration and its files would give, which are known by these prints now.
    pub fn is_current(&self, config: &ListenerTls, http: bool, prints: &[Print]) -> bool {
        self.config == *config
            && self.http == http
            && self.again.is_none_or(|again| again > now())
            && self.prints == prints
    }

    /// Notes what is in force, for whoever names the same files.
    pub fn note(&self, good: &mut LastGood) {
        for (files, (pair, _)) in self.config.certificates.iter().zip(&self.certificates.all) {
            good.pair(&files.cert.value, &files.key.value, pair);
        }
        if let (Some(ca), Some(trust)) = (&self.config.client_ca, &self.trust) {
            good.trust(&ca.value, self.config.client_crl.as_ref().map(|crl| crl.value.as_path()), trust);
        }
    }

    /// Whether the other one shows and trusts the very same.
    pub fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.certificates.all.iter().zip(&other.certificates.all);
        self.certificates.all.len() == other.certificates.all.len()
            && pairs.all(|((key, _), (other, _))| Arc::ptr_eq(key, other))
            && same(self.trust.as_ref(), other.trust.as_ref())
    }

    /// What is in force, and not valid now.
    pub fn faults(&self) -> Vec<String> {
        let now = now();
        let pairs = self.certificates();
        let certificates = pairs.filter_map(|(files, known)| out_of_force(known, &files.cert.value, now));
        let lists = self.revoked().map(|(file, revoked)| revoked.out_of_date(file, now));
        certificates.chain(lists.unwrap_or_default()).collect()
    }

    /// The revocation lists in force, and their file.
    pub fn revoked(&self) -> Option<(&Path, &Revoked)> {
        let file = self.config.client_crl.as_ref()?;
        Some((&file.value, self.trust.as_ref()?.revoked.as_ref()?))
    }

    /// The listener's certificates, and the files that each came from.
    pub fn certificates(&self) -> impl Iterator<Item = (&CertificateFiles, &Certificate)> {
        let files = self.config.certificates.iter().map(|files| &files.value);
        files.zip(self.certificates.all.iter().map(|(_, described)| &**described))
    }

    /// Whether time may have made a difference to what was thought of a chain. Whether it has, the verifier tells.
    fn may_have_aged(&self, chain: &[CertificateDer<'_>]) -> bool {
        let now = now();
        let late = self.revoked().and_then(|(_, revoked)| revoked.next_update());
        late.is_some_and(|next| next <= now)
            || chain.iter().any(|der| describe(der).is_none_or(|known| known.validity.1 < now))
    }

    /// Judges the chain of a client by who is trusted, and what time it is.
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (Some(verifier), Some((leaf, others))) = (&self.verifier, chain.split_first()) else {
            return Ok(());
        };
        verifier.verify_client_cert(leaf, others, UnixTime::now()).map(drop)
    }

    /// Whether the client at the other end of a connection is trusted, which has shaken hands with `began`.
    pub fn trusts(&self, stream: &Stream, began: &Self) -> bool {
        same(self.trust.as_ref(), began.trust.as_ref()) || self.judge(stream.peer_chain()).is_ok()
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
        if resumed
            && self.may_have_aged(chain)
            && let Err(error) = self.judge(chain)
        {
            // Who has a ticket of that time is to show a certificate once more, and not to be refused again and again.
            self.tickets.forget().map_err(io::Error::other)?;
            let why = format!("what the client's session began with is not good any more: {error}");
            return Err(io::Error::other(why));
        }
        let tls = Tls {
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            offered: Vec::new(),
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
pub fn files_of(config: &ListenerTls) -> impl Iterator<Item = Use<'_>> {
    let pairs = config.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    let pairs = pairs.map(|file| (file, Kind::Pair));
    let authorities = config.client_ca.iter().map(|file| (file, Kind::Authorities));
    let lists = config.client_crl.iter().map(|file| (file, Kind::Lists));
    pairs.chain(authorities).chain(lists).map(|(file, kind)| (file.value.as_path(), kind))
}

/// Whether both are the very same.
fn same(one: Option<&Arc<Trust>>, other: Option<&Arc<Trust>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// What judges certificates of clients.
fn verifier(
    config: &ListenerTls,
    trust: &Trust,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&trust.roots), provider());
    if let Some(revoked) = &trust.revoked {
        let lists = revoked.lists().iter().map(|list| list.der.clone());
        verifier = verifier.with_crls(lists).enforce_revocation_expiration();
    }
    match config.client_certificate.value {
        ClientCertificate::Optional => verifier.allow_unauthenticated(),
        ClientCertificate::None | ClientCertificate::Required => verifier,
    }
    .build()
}

/// What rustls is to do: whom it shows which certificate, and whom it asks for one.
fn rustls_config(
    verifier: Option<&Arc<dyn ClientCertVerifier>>,
    certificates: &Arc<Certificates>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
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
