//! What a stream is made of in a test: connection, messages, route, time.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use crate::config::metadata::Metadata;
use crate::config::problem::Mark;
use crate::config::section::{Context, Definitions, Read, choice, section, text};
use crate::config::value::Spanned;
use crate::config::yaml::{Node, Value};
use crate::net::connection::{Certificate, Connection, Tls};
use crate::testbed::message::{Body, Headers};

section! {
    /// A downstream connection.
    pub struct ConnectionFacts {
        /// The client's address.
        peer: SocketAddr = "192.0.2.1:50000",
        /// The address that it connected to.
        local: SocketAddr = "192.0.2.10:443",
        /// The listener's name.
        listener: String = "test",
        /// TLS, when there is any.
        tls: Option<TlsFacts>,
    }
}

section! {
    /// The TLS of a connection.
    pub struct TlsFacts {
        /// The server name that the client asked for.
        server_name: Option<String>,
        /// The protocol that was negotiated.
        alpn: Option<String>,
        /// The protocols that the client offers, where Weir holds no key.
        offered: Vec<String>,
        /// The version of TLS, or `passthrough` where Weir holds no key.
        version: TlsVersion = "TLSv1.3",
        /// The client's certificate, when it showed one that was verified.
        client: Option<CertificateFacts>,
        /// Weir's own.
        server: Option<CertificateFacts>,
    }
}

choice! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// TLS 1.2
        Tls12 = "TLSv1.2",
        /// TLS 1.3
        Tls13 = "TLSv1.3",
        /// Weir saw the ClientHello only.
        Passthrough = "passthrough",
    }
}

section! {
    /// A certificate.
    pub struct CertificateFacts {
        /// The subject, as RFC 4514 writes it.
        subject: String = "",
        /// The issuer's subject.
        issuer: String = "",
        /// The URI subject alternative names.
        uri_sans: Vec<String>,
        /// The DNS subject alternative names.
        dns_sans: Vec<String>,
        /// SHA-256 of the certificate, in hexadecimal.
        sha256: String = "",
        /// The serial number, in hexadecimal.
        serial: String = "",
    }
}

section! {
    /// The route that was chosen.
    pub struct RouteInfo {
        /// Its name.
        name: String = "test",
        /// The cluster that its requests go to.
        cluster: String = "upstream",
        /// The endpoint of the cluster that gets them.
        endpoint: SocketAddr = "198.51.100.1:80",
        /// Its metadata.
        metadata: Metadata,
        /// The metadata of the cluster.
        cluster_metadata: Metadata,
    }
}

choice! {
    /// A version of HTTP.
    pub enum Protocol {
        /// HTTP/1.1
        Http11 = "HTTP/1.1",
        /// HTTP/2
        Http2 = "HTTP/2",
    }
}

section! {
    /// A request, as the client sends it.
    pub struct RequestFacts {
        /// The method.
        method: String = "GET",
        /// Its `Host`, or `:authority`.
        host: String = "example.test",
        /// Path and query.
        path: Spanned<String> = "/",
        /// The version of HTTP.
        protocol: Protocol = "HTTP/1.1",
        /// Its headers; a list is a header that is there several times.
        headers: Headers = "",
        /// Its body; a list is a body that comes in pieces.
        body: Body = "",
        /// Its trailers.
        trailers: Headers = "",
    }
}

section! {
    /// A response, as the upstream sends it.
    pub struct ResponseFacts {
        /// The status.
        status: Spanned<u16> = "200",
        /// Its headers; a list is a header that is there several times.
        headers: Headers = "",
        /// Its body; a list is a body that comes in pieces.
        body: Body = "",
        /// Its trailers.
        trailers: Headers = "",
        /// How long the upstream takes.
        after: Duration = "0ms",
    }
}

/// What comes on a connection, in the order of a list.
#[derive(Debug, Clone, PartialEq)]
pub enum Direction {
    /// The client sends this.
    Client(Body),
    /// The upstream sends this.
    Upstream(Body),
}

impl Read for Direction {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let bodies = |key| node.get(key).map(|value| (key, value));
        match (bodies("client"), bodies("upstream"), &node.value) {
            (Some((key, value)), None, Value::Mapping(entries)) if entries.len() == 1 => {
                cx.below(key, |cx| Body::read(value, cx)).map(Self::Client)
            }
            (None, Some((key, value)), Value::Mapping(entries)) if entries.len() == 1 => {
                cx.below(key, |cx| Body::read(value, cx)).map(Self::Upstream)
            }
            _ => {
                cx.problem(
                    node.at,
                    "who sends what is expected here; write `client: TEXT` or `upstream: TEXT`",
                );
                None
            }
        }
    }

    fn schema(definitions: &mut Definitions) -> Json {
        let body = Body::schema(definitions);
        let one = |who: &str| json!({ "type": "object", "properties": { who: body }, "required": [who], "additionalProperties": false });
        json!({ "oneOf": [one("client"), one("upstream")] })
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Client(body) => json!({ "client": body.to_json() }),
            Self::Upstream(body) => json!({ "upstream": body.to_json() }),
        }
    }
}

/// A point in time, in UTC, as in `2026-01-31T12:00:00Z` (RFC 3339).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub SystemTime);

impl Time {
    /// Reads a time.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let numbers = |text: &str, separator| -> Option<[u64; 3]> {
            let mut parts = text.split(separator).map(|part| part.parse().ok());
            let three = [parts.next()??, parts.next()??, parts.next()??];
            parts.next().is_none().then_some(three)
        };
        let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
        let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !in_range || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        // Days since 1970 of a date of the Gregorian calendar, whose years are counted from March.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
        let seconds = (days - 719_468) * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Self(UNIX_EPOCH + Duration::from_secs(seconds)))
    }

    fn unix(self) -> u64 {
        self.0.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}

impl Read for Time {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let word = text(node, cx)?;
        let time = Self::parse(word);
        if time.is_none() {
            cx.problem(node.at, format!("`{word}` is not a time; write it as in `2026-01-31T12:00:00Z`"));
        }
        time
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "string", "format": "date-time" })
    }

    fn to_json(&self) -> Json {
        self.unix().into()
    }

    fn recovered() -> Option<Self> {
        Some(Self(UNIX_EPOCH))
    }
}

/// A section in which nothing is said.
///
/// # Panics
/// When the section has a field that must be there; a mistake of ours.
pub fn default_of<T: Read>() -> T {
    let nothing = Node { at: Mark::default(), value: Value::Mapping(Vec::new()) };
    let mut cx = Context::new(std::path::Path::new(""));
    T::read(&nothing, &mut cx).unwrap_or_else(|| panic!("a section without fields that must be there"))
}

impl ConnectionFacts {
    /// The connection, as the host knows connections.
    pub(super) fn make(&self, id: u64, accepted: SystemTime) -> Arc<Connection> {
        Arc::new(Connection {
            id,
            listener: self.listener.as_str().into(),
            peer: self.peer,
            local: self.local,
            accepted,
            tls: self.tls.as_ref().map(TlsFacts::make),
            told: OnceLock::new(),
        })
    }
}

impl TlsFacts {
    fn make(&self) -> Tls {
        let certificate = |facts: &Option<CertificateFacts>| facts.as_ref().map(CertificateFacts::make);
        Tls {
            server_name: self.server_name.as_deref().map(Into::into),
            alpn: self.alpn.as_ref().map(|alpn| alpn.clone().into_bytes()),
            offered: self.offered.iter().map(|offered| offered.clone().into_bytes()).collect(),
            version: match self.version {
                TlsVersion::Passthrough => "",
                version @ (TlsVersion::Tls12 | TlsVersion::Tls13) => version.word(),
            },
            peer: certificate(&self.client),
            local: certificate(&self.server),
            bound: false,
        }
    }
}

impl CertificateFacts {
    fn make(&self) -> Arc<Certificate> {
        Arc::new(Certificate {
            subject: self.subject.clone(),
            issuer: self.issuer.clone(),
            uri_sans: self.uri_sans.clone(),
            dns_sans: self.dns_sans.clone(),
            sha256: self.sha256.clone(),
            serial: self.serial.clone(),
            ..Certificate::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_seconds_since_1970_and_dates_that_are_none_are_refused() {
        let unix = |text| Time::parse(text).map(Time::unix);
        assert_eq!(unix("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix("2000-02-29T12:30:01Z"), Some(951_827_401));
        assert_eq!(unix("2026-11-26T08:20:58Z"), Some(1_795_681_258));
        for wrong in
            ["2026-11-26", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00+01:00", "x"]
        {
            assert_eq!(unix(wrong), None, "{wrong}");
        }
    }
}
