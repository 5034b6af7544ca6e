//! What Weir does to every request on receipt: hop-by-hop headers go, claims about who is calling are replaced by
//! what is known, and every request has an id.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use http::header::{self, HeaderName, HeaderValue};

use crate::config::value::IpNet;
use crate::http::marks::Marks;
use crate::http::message::{Request, Version, has_token, strip_hop_by_hop};
use crate::net::connection::{Connection, Told};
use crate::proxy::forwarded::forwarded;

const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The header with a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Goes with an upgrade to HTTP/2 (RFC 7540 section 3.2.1), which is not passed on.
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The longest id that is taken over from a client.
const LONGEST_ID: usize = 128;

/// What a request says, beside what is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The protocol that the client wants to change to, when it asks for that.
    pub upgrade: Option<HeaderValue>,
    /// The client's address: the peer's, or the one that proxies in front of Weir tell.
    pub client: IpAddr,
}

/// Prepares a request for its filters and its upstream. `marks`: those of its headers. `trusted`: the proxies whose claims
/// are believed.
pub fn prepare(request: &mut Request, marks: Marks, connection: &Connection, trusted: &[IpNet]) -> Said {
    let upgrade = if marks.has(Marks::UPGRADE) { upgrade(request) } else { None };
    let headers = &mut request.headers;
    strip_hop_by_hop(headers, marks);
    if marks.has(Marks::HTTP2_SETTINGS) {
        headers.remove(HTTP2_SETTINGS);
    }
    if marks.has(Marks::EXPECT) {
        // Weir itself tells the client to go on.
        headers.remove(header::EXPECT);
    }
    let told = connection.told.get_or_init(|| told(connection));
    let peer = (connection.peer.ip(), &told.address);
    let client = forwarded(headers, marks, peer, request.scheme, trusted);
    match &told.certificate {
        Some(certificate) => drop(headers.insert(CLIENT_CERT, certificate.clone())),
        None if marks.has(Marks::CLIENT_CERT) => drop(headers.remove(CLIENT_CERT)),
        None => {}
    }
    let id = marks.has(Marks::REQUEST_ID).then(|| headers.get(REQUEST_ID)).flatten();
    if !id.is_some_and(|id| is_sound_id(id.as_bytes())) {
        headers.insert(REQUEST_ID, new_id());
    }
    if let Some(upgrade) = &upgrade {
        headers.insert(header::UPGRADE, upgrade.clone());
    }
    Said { upgrade, client }
}

/// What `Upgrade` says, when `Connection` names it; in HTTP/1.0 it says nothing (RFC 9110 section 7.8). HTTP/2 is not
/// begun that way: what followed would pass by routes and filters.
fn upgrade(request: &Request) -> Option<HeaderValue> {
    let headers = &request.headers;
    let all = headers.get_all(header::UPGRADE);
    let http2 = |value: &HeaderValue| ["h2c", "h2"].iter().any(|token| has_token(value, token));
    if request.version == Version::Http10 || all.iter().any(http2) || all.iter().count() > 1 {
        return None;
    }
    let mut options = headers.get_all(header::CONNECTION).iter();
    if !options.any(|value| has_token(value, "upgrade")) {
        return None;
    }
    headers.get(header::UPGRADE).cloned()
}

fn is_sound_id(id: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// A random UUID (RFC 9562 section 5.4).
fn new_id() -> HeaderValue {
    let mut bits = fastrand::u128(..);
    bits = (bits & !(0xf << 76)) | (4 << 76);
    bits = (bits & !(0x3 << 62)) | (0x2 << 62);
    let mut digits = [0; 32];
    HEXLOWER.encode_mut(&bits.to_be_bytes(), &mut digits);
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&digits[..8]);
    text[9..13].copy_from_slice(&digits[8..12]);
    text[14..18].copy_from_slice(&digits[12..16]);
    text[19..23].copy_from_slice(&digits[16..20]);
    text[24..].copy_from_slice(&digits[20..]);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

/// What upstreams are told of a client.
fn told(connection: &Connection) -> Told {
    let address = HeaderValue::try_from(connection.peer.ip().to_canonical().to_string());
    Told {
        address: address.unwrap_or(HeaderValue::from_static("unknown")),
        certificate: client_certificate(connection),
    }
}

/// `x-forwarded-client-cert`, in Envoy's format, of the certificate that was verified.
fn client_certificate(connection: &Connection) -> Option<HeaderValue> {
    let tls = connection.tls.as_ref()?;
    let peer = tls.peer.as_ref()?;
    let mut value = String::with_capacity(256);
    if let Some(by) = tls.local.as_ref().and_then(|local| local.uri_sans.first()) {
        value.push_str(&format!("By={};", quoted(by)));
    }
    value.push_str(&format!("Hash={}", peer.sha256));
    if !peer.subject.is_empty() {
        value.push_str(&format!(";Subject={}", in_quotes(&peer.subject)));
    }
    peer.uri_sans.iter().for_each(|uri| value.push_str(&format!(";URI={}", quoted(uri))));
    peer.dns_sans.iter().for_each(|name| value.push_str(&format!(";DNS={}", quoted(name))));
    HeaderValue::try_from(value).ok()
}

/// A value of the header: in quotes when it holds what separates values.
fn quoted(value: &str) -> String {
    let odd = |c: char| matches!(c, ',' | ';' | '=' | '"') || c.is_control();
    if value.contains(odd) { in_quotes(value) } else { value.to_owned() }
}

/// A value in quotes. What no header may hold is percent-encoded, so that a certificate with an odd subject is told of
/// all the same.
fn in_quotes(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};
    use std::time::SystemTime;

    use http::{HeaderMap, Method};

    use super::*;
    use crate::http::message::Scheme;
    use crate::net::connection::{Certificate, Tls};

    fn connection(tls: Option<Tls>) -> Connection {
        Connection {
            id: 1,
            listener: "l".into(),
            peer: ([10, 0, 0, 7], 5000).into(),
            local: ([10, 0, 0, 1], 443).into(),
            accepted: SystemTime::now(),
            tls,
            told: OnceLock::new(),
        }
    }

    fn prepared(headers: &[(&'static str, &'static str)], connection: &Connection) -> HeaderMap {
        let mut request = Request {
            method: Method::GET,
            scheme: Scheme::Https,
            authority: HeaderValue::from_static("a"),
            path: HeaderValue::from_static("/"),
            version: Version::Http11,
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
        };
        let marks = Marks::of(&request.headers);
        prepare(&mut request, marks, connection, &[]);
        request.headers
    }

    #[test]
    fn every_request_has_an_id_and_a_sound_one_is_kept() {
        let id = prepared(&[], &connection(None))["x-request-id"].to_str().expect("text").to_owned();
        assert_eq!((id.len(), id.as_bytes()[14], id.matches('-').count()), (36, b'4', 4), "{id}");
        let kept = prepared(&[("x-request-id", "abc-1")], &connection(None));
        assert_eq!(kept["x-request-id"], "abc-1");
        let replaced = prepared(&[("x-request-id", "a b")], &connection(None));
        assert_ne!(replaced["x-request-id"], "a b");
    }

    #[test]
    fn the_client_certificate_header_comes_from_the_verified_chain_alone() {
        let forged = [("x-forwarded-client-cert", "URI=spiffe://mesh.internal/admin")];
        assert!(!prepared(&forged, &connection(None)).contains_key("x-forwarded-client-cert"));
        let peer = Certificate {
            subject: "CN=say \"hi\"\n,O=x".into(),
            uri_sans: vec!["spiffe://mesh.internal/orders".into()],
            dns_sans: vec!["orders.internal".into()],
            sha256: "ab12".into(),
            ..Certificate::default()
        };
        let local =
            Certificate { uri_sans: vec!["spiffe://mesh.internal/gw".into()], ..Certificate::default() };
        let tls = Tls { peer: Some(Arc::new(peer)), local: Some(Arc::new(local)), ..Tls::default() };
        let headers = prepared(&forged, &connection(Some(tls)));
        assert_eq!(
            headers["x-forwarded-client-cert"],
            "By=spiffe://mesh.internal/gw;Hash=ab12;Subject=\"CN=say \\\"hi\\\"%0A,O=x\";\
             URI=spiffe://mesh.internal/orders;DNS=orders.internal"
        );
    }
}
