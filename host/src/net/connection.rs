//! What is known of a downstream connection once it has been identified. Shared by all of its streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::BASE64;

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
}

/// What is known of the TLS of a connection.
#[derive(Debug, Default)]
pub struct Tls {
    /// The server name that the client asked for, in its canonical form.
    pub server_name: Option<Arc<str>>,
    /// The protocol that was negotiated; for passthrough, none.
    pub alpn: Option<Vec<u8>>,
    /// As in `TLSv1.3`. Empty for passthrough.
    pub version: &'static str,
    /// The peer's certificate, when it showed one that was verified.
    pub peer: Option<Arc<Certificate>>,
    /// Weir's own certificate on this connection.
    pub local: Option<Arc<Certificate>>,
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
