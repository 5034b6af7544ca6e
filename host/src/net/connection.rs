//! What is known of a downstream connection once it has been identified. Shared by all of its streams.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use data_encoding::BASE64;
use http::HeaderValue;

use crate::net::client_hello::canonical_name;

/// A downstream connection.
#[derive(Debug)]
pub struct Connection {
    /// A number that no other connection of this process has.
    pub id: u64,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The downstream's address.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// TLS, when there is any: read from the ClientHello (passthrough) or negotiated (terminate).
    pub tls: Option<Tls>,
    /// What upstreams are told of it, from its first request on.
    pub told: OnceLock<Told>,
}

/// What upstreams are told of a downstream connection, as it is written in headers.
#[derive(Debug)]
pub struct Told {
    /// The downstream's address.
    pub address: HeaderValue,
    /// Its certificate.
    pub certificate: Option<HeaderValue>,
}

/// What is known of the TLS of a connection.
#[derive(Debug, Default)]
pub struct Tls {
    /// The server name that the client asked for, in its canonical form.
    pub server_name: Option<Arc<str>>,
    /// The protocol that was negotiated; for passthrough, none.
    pub alpn: Option<Vec<u8>>,
    /// The protocols that the client offers, in its order; known of passthrough only.
    pub offered: Vec<Vec<u8>>,
    /// As in `TLSv1.3`. Empty for passthrough.
    pub version: &'static str,
    /// The peer's certificate, when it showed one that was verified.
    pub peer: Option<Arc<Certificate>>,
    /// Weir's own certificate on this connection.
    pub local: Option<Arc<Certificate>>,
    /// Whether requests may only be for hosts that the handshake was for.
    pub bound: bool,
}

impl Tls {
    /// Whether a request may be for a host: the one that the client asked for in the handshake, or one of the certificate
    /// that it was shown (RFC 9110 section 7.4, RFC 9113 section 9.1.1). A certificate that names no host at all, as of
    /// SPIFFE, says nothing of hosts.
    pub fn allows(&self, host: &str) -> bool {
        if !self.bound {
            return true;
        }
        let shown = |is: &dyn Fn(&Certificate) -> bool| {
            self.local.as_ref().is_some_and(|shown| shown.names_no_host() || is(shown))
        };
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return shown(&|certificate| certificate.ip_sans.contains(&address));
        }
        let Some(name) = canonical_name(host) else { return false };
        self.server_name.as_deref() == Some(&*name) || shown(&|certificate| certificate.names(&name))
    }
}

/// What filters and logs may know of a certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The subject, as RFC 4514 writes it.
    pub subject: String,
    /// The issuer's subject.
    pub issuer: String,
    /// The URI subject alternative names.
    pub uri_sans: Vec<String>,
    /// The DNS subject alternative names.
    pub dns_sans: Vec<String>,
    /// The IP subject alternative names.
    pub ip_sans: Vec<IpAddr>,
    /// SHA-256 of the DER encoding, in lower-case hexadecimal.
    pub sha256: String,
    /// The serial number, in lower-case hexadecimal.
    pub serial: String,
    /// When it begins and ends to be valid, in seconds since 1970.
    pub validity: (i64, i64),
    /// All of it, in DER.
    pub der: Box<[u8]>,
}

impl Certificate {
    /// All of it as text (RFC 7468, section 5.1), with `\n` at the end of each line.
    pub fn pem(&self) -> String {
        const COLUMNS: usize = 64;
        let text = BASE64.encode(&self.der);
        let mut pem = String::with_capacity(text.len() + text.len() / COLUMNS + 64);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(COLUMNS) {
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    /// The SPIFFE identity: the one URI name, when it is one of `spiffe:` and there is no other URI
    /// (SPIFFE X.509-SVID, section 2).
    pub fn spiffe_id(&self) -> Option<&str> {
        match self.uri_sans.as_slice() {
            [uri] if uri.starts_with("spiffe://") => Some(uri),
            _ => None,
        }
    }

    fn names_no_host(&self) -> bool {
        self.dns_sans.is_empty() && self.ip_sans.is_empty()
    }

    /// Whether a name in its canonical form is one of those that it is for. An asterisk stands for one label (RFC 9525
    /// section 6.3).
    fn names(&self, name: &str) -> bool {
        let behind_label = name.find('.').and_then(|dot| name.get(dot..));
        self.dns_sans.iter().any(|san| match san.strip_prefix('*') {
            Some(suffix) => behind_label.is_some_and(|rest| rest.eq_ignore_ascii_case(suffix)),
            None => san.eq_ignore_ascii_case(name),
        })
    }
}

impl Connection {
    /// The server name that the client asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.tls.as_ref()?.server_name.as_deref()
    }

    /// The verified certificate of the peer.
    pub fn peer_certificate(&self) -> Option<&Certificate> {
        self.tls.as_ref()?.peer.as_deref()
    }

    /// Who the peer is, by its verified certificate: its SPIFFE identity, else its subject.
    pub fn identity(&self) -> Option<&str> {
        let certificate = self.peer_certificate()?;
        certificate.spiffe_id().or(Some(&certificate.subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_connection_is_for_its_server_name_and_the_names_of_its_certificate() {
        let certificate = Certificate {
            dns_sans: vec!["a.example".into(), "*.B.example".into()],
            ip_sans: vec![[10, 0, 0, 1].into(), "::1".parse().expect("an address")],
            ..Certificate::default()
        };
        let local = Some(Arc::new(certificate));
        let tls = Tls { bound: true, local, server_name: Some("sni.example".into()), ..Tls::default() };
        for host in ["sni.example", "A.example", "x.b.example", "10.0.0.1", "[::1]"] {
            assert!(tls.allows(host), "{host}");
        }
        for host in ["b.example", "x.y.b.example", "sni.example.evil", "10.0.0.2", "[::2]", "", "a example"] {
            assert!(!tls.allows(host), "{host}");
        }
        assert!(Tls { bound: false, ..tls }.allows("any"));
    }

    #[test]
    fn a_certificate_without_a_host_binds_to_none() {
        let spiffe = Certificate { uri_sans: vec!["spiffe://a/b".into()], ..Certificate::default() };
        let tls = Tls { bound: true, local: Some(Arc::new(spiffe)), ..Tls::default() };
        assert!(tls.allows("any.example") && tls.allows("10.0.0.1"));
        assert!(!Tls { bound: true, ..Tls::default() }.allows("any.example"), "and without a certificate");
    }
}
