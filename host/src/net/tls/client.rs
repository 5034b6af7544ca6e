//! TLS towards a cluster.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptionsBuilder,
};

use crate::config::tls::ClusterTls;
use crate::net::connection::{Certificate, Tls};
use crate::net::stream::Stream;
use crate::net::tls::files::{FileProblem, Kind, Print, Use};
use crate::net::tls::lists::Revoked;
use crate::net::tls::renewal::{LastGood, Renewal, Sources, Trouble, Trust, now, out_of_force};
use crate::net::tls::{H2, HTTP_1_1, describe, provider, version};

/// TLS towards a cluster.
pub struct ClientTls {
    /// The configuration that it was made from.
    pub config: ClusterTls,
    http: TlsConnector,
    /// For exchanges that change the protocol, which HTTP/2 cannot.
    upgrade: TlsConnector,
    tcp: TlsConnector,
    server_name: Option<ServerName<'static>>,
    /// What is wrong with its files now; what they held before is in force.
    pub troubles: Vec<Trouble>,
    /// What the files are known by that it was made of.
    prints: Vec<Print>,
    /// When to look at them again even though they are the same.
    again: Option<i64>,
    trust: Arc<Trust>,
    key: Option<Arc<CertifiedKey>>,
    offer: Offer,
    own: Option<Arc<Certificate>>,
}

/// Which protocols are offered where HTTP is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Both; the endpoint chooses.
    Both,
}

/// The endpoints of a cluster, as TLS knows them.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints<'a> {
    /// What to call them when the configuration does not say.
    pub name: Option<&'a str>,
    /// What they are offered.
    pub offer: Offer,
}

impl ClientTls {
    /// TLS as it is configured, made of what files hold now, or held before where they are of no use now. `before`: what the
    /// cluster had.
    ///
    /// # Errors
    /// Every file that is wrong, and of which nothing good is known from before.
    pub fn new(
        config: &ClusterTls,
        endpoints: Endpoints<'_>,
        before: Option<&Self>,
        sources: &mut Sources,
    ) -> Result<Self, Vec<FileProblem>> {
        let Endpoints { name, offer } = endpoints;
        let prints = sources.files.prints(files_of(config));
        let mut renewal = Renewal::new(sources);
        let trust = renewal.trust(&config.ca, config.crl.as_ref(), before.map(|before| &before.trust));
        let mut problems = Vec::new();
        let own = match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => renewal.pair(cert, key),
            (None, None) => None,
            (Some(path), None) | (None, Some(path)) => {
                problems.push((
                    path.place.clone(),
                    "`cert` and `key` belong together; give both or none".to_owned(),
                ));
                None
            }
        };
        let wanted = config.sni.as_ref().map(|sni| sni.as_str()).or(name);
        let server_name = wanted.map(|name| ServerName::try_from(name.to_owned())).transpose();
        let server_name = server_name.unwrap_or_else(|_| {
            let place = config.sni.as_ref().map(|sni| sni.place.clone()).unwrap_or_default();
            problems.push((place, format!("`{}` is not a server name", wanted.unwrap_or_default())));
            None
        });
        problems.append(&mut renewal.problems);
        let (Some(trust), true) = (trust, problems.is_empty()) else { return Err(problems) };
        let identities = config.verify_identity.iter().map(|identity| identity.value.clone()).collect();
        let place = config.ca.place.clone();
        let mut tcp = rustls_config(&trust, identities, own.as_ref()).map_err(|error| {
            vec![(place, format!("TLS cannot be set up with this: {error}; check the file"))]
        })?;
        let described = own.as_ref().and_then(|own| describe(own.cert.first()?));
        tcp.enable_sni = server_name.is_some();
        let offering = |protocols: &[&[u8]]| {
            let mut config = tcp.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        let (http, upgrade) = match offer {
            Offer::Http1 => (offering(&[HTTP_1_1]), offering(&[HTTP_1_1])),
            Offer::Http2 => (offering(&[H2]), offering(&[H2])),
            Offer::Both => (offering(&[H2, HTTP_1_1]), offering(&[HTTP_1_1])),
        };
        Ok(Self {
            config: config.clone(),
            http,
            upgrade,
            tcp: TlsConnector::from(Arc::new(tcp)),
            server_name,
            troubles: renewal.troubles(before.map(|before| before.troubles.as_slice()).unwrap_or_default()),
            prints,
            again: renewal.again,
            trust,
            key: own,
            offer,
            own: described.map(Arc::new),
        })
    }

    /// The certificate that Weir shows, when it has one.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.own.as_deref()
    }

    /// Whether this is what the configuration and its files would give, which are known by these prints now.
    pub fn is_current(&self, config: &ClusterTls, offer: Offer, prints: &[Print]) -> bool {
        self.config == *config
            && self.offer == offer
            && self.again.is_none_or(|again| again > now())
            && self.prints == prints
    }

    /// Notes what is in force, for whoever names the same files.
    pub fn note(&self, good: &mut LastGood) {
        let crl = self.config.crl.as_ref().map(|crl| crl.value.as_path());
        good.trust(&self.config.ca.value, crl, &self.trust);
        if let (Some(cert), Some(key), Some(pair)) = (&self.config.cert, &self.config.key, &self.key) {
            good.pair(&cert.value, &key.value, pair);
        }
    }

    /// Whether the other one trusts the very same endpoints.
    pub fn trusts_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.trust, &other.trust)
    }

    /// Whether the other one shows and trusts the very same.
    pub fn is_same(&self, other: &Self) -> bool {
        let key = match (&self.key, &other.key) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        key && self.trusts_same(other)
    }

    /// What is in force, and not valid now.
    pub fn faults(&self) -> Vec<String> {
        let now = now();
        let own = self.own.as_ref().zip(self.config.cert.as_ref());
        let own = own.and_then(|(own, file)| out_of_force(own, &file.value, now));
        let lists = self.revoked().map(|(file, revoked)| revoked.out_of_date(file, now));
        own.into_iter().chain(lists.unwrap_or_default()).collect()
    }

    /// The revocation lists in force, and their file.
    pub fn revoked(&self) -> Option<(&Path, &Revoked)> {
        Some((&self.config.crl.as_ref()?.value, self.trust.revoked.as_ref()?))
    }

    /// Shakes hands for HTTP; for an exchange that is to change the protocol, with `upgrade`. What was agreed on is
    /// told beside the connection; [`H2`] when it is HTTP/2.
    ///
    /// # Errors
    /// When the handshake fails, or when only HTTP/2 was offered and the endpoint does not speak it.
    pub async fn connect_http(&self, socket: TcpStream, upgrade: bool) -> io::Result<(Stream, Tls)> {
        let connector = if upgrade { &self.upgrade } else { &self.http };
        let stream = connector.connect(self.name_for(&socket)?, socket).await?;
        let tls = self.told(&stream);
        if self.offer == Offer::Http2 && tls.alpn.as_deref() != Some(H2) {
            return Err(io::Error::other("the endpoint does not agree to HTTP/2"));
        }
        Ok((Stream::Tls(Box::new(stream.into())), tls))
    }

    /// Shakes hands for anything else.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn connect_tcp(&self, socket: TcpStream) -> io::Result<(Stream, Tls)> {
        let stream = self.tcp.connect(self.name_for(&socket)?, socket).await?;
        let tls = self.told(&stream);
        Ok((Stream::Tls(Box::new(stream.into())), tls))
    }

    /// What the handshake has told.
    fn told(&self, stream: &TlsStream<TcpStream>) -> Tls {
        let (_, session) = stream.get_ref();
        let peer = session.peer_certificates().and_then(|chain| describe(chain.first()?));
        Tls {
            server_name: match &self.server_name {
                Some(ServerName::DnsName(name)) => Some(name.as_ref().into()),
                Some(_) | None => None,
            },
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            offered: Vec::new(),
            version: version(session.protocol_version()),
            peer: peer.map(Arc::new),
            local: self.own.clone(),
            bound: false,
        }
    }

    fn name_for(&self, socket: &TcpStream) -> io::Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => Ok(ServerName::IpAddress(socket.peer_addr()?.ip().into())),
        }
    }
}

/// What rustls is to do: whom it trusts, and what it shows.
fn rustls_config(
    trust: &Trust,
    identities: Vec<String>,
    own: Option<&Arc<CertifiedKey>>,
) -> Result<ClientConfig, Box<dyn std::error::Error>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(trust, identities)?));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let own = rustls::sign::SingleCertAndKey::from(Arc::clone(own));
            builder.with_client_cert_resolver(Arc::new(own))
        }
    };
    // Who was trusted once may not be any more: every connection looks at the certificate anew.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The files that TLS towards a cluster is made of.
pub fn files_of(config: &ClusterTls) -> impl Iterator<Item = Use<'_>> {
    let lists = config.crl.iter().map(|file| (file, Kind::Lists));
    let pair = config.cert.iter().chain(&config.key).map(|file| (file, Kind::Pair));
    let files = std::iter::once((&config.ca, Kind::Authorities)).chain(lists).chain(pair);
    files.map(|(file, kind)| (file.value.as_path(), kind))
}

/// Verifies endpoints: the chain always; then the identity, where identities are configured, or else the name.
#[derive(Debug)]
struct Verifier {
    by_name: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    /// What the authorities have revoked.
    revoked: Vec<CertRevocationList<'static>>,
    identities: Vec<String>,
}

impl Verifier {
    fn new(trust: &Trust, identities: Vec<String>) -> Result<Self, Box<dyn std::error::Error>> {
        let roots = Arc::clone(&trust.roots);
        let mut by_name = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider());
        let mut revoked = Vec::new();
        for list in trust.revoked.iter().flat_map(Revoked::lists) {
            by_name = by_name.with_crls([list.der.clone()]);
            revoked.push(OwnedCertRevocationList::from_der(&list.der)?.into());
        }
        let by_name = by_name.enforce_revocation_expiration().build()?;
        Ok(Self { by_name, roots, revoked, identities })
    }

    /// Verifies the chain, whatever name is in it.
    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let parsed = EndEntityCert::try_from(end_entity)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        // None when there are no lists.
        let revoked = RevocationOptionsBuilder::new(&lists).ok();
        let revoked =
            revoked.map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce).build());
        let (algorithms, usage) = (provider().signature_verification_algorithms.all, KeyUsage::server_auth());
        let roots = &self.roots.roots;
        parsed.verify_for_usage(algorithms, roots, intermediates, now, usage, revoked, None).map(drop)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.identities.is_empty() {
            return self.by_name.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        self.verify_chain(end_entity, intermediates, now).map_err(|error| {
            let other = rustls::OtherError(Arc::new(error));
            Error::InvalidCertificate(CertificateError::Other(other))
        })?;
        // One URI and no other (SPIFFE X.509-SVID, section 2).
        let certificate =
            describe(end_entity).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        match certificate.uri_sans.as_slice() {
            [uri] if self.identities.contains(uri) => Ok(ServerCertVerified::assertion()),
            uris => {
                let message = format!("the endpoint is {uris:?}, not one of {:?}", self.identities);
                Err(Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(
                    io::Error::other(message),
                )))))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_name.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_name.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_name.supported_verify_schemes()
    }
}
