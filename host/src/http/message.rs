//! Messages, as every protocol and every filter sees them.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::http::marks::Marks;

/// The version that a message came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As `request.protocol` and the access log have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The head of a request. What HTTP/1 has in its request line and HTTP/2 in pseudo-headers stands in fields.
#[derive(Debug, Clone)]
pub struct Request {
    /// `:method`
    pub method: Method,
    /// `:scheme`
    pub scheme: Scheme,
    /// `:authority`; what HTTP/1 has in Host, which is not among the headers.
    pub authority: HeaderValue,
    /// `:path`: path and query.
    pub path: HeaderValue,
    /// The version that it came with.
    pub version: Version,
    /// The other headers.
    pub headers: HeaderMap,
}

/// The scheme of a request: how it reached Weir, whatever the client claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Through TLS.
    Https,
}

impl Scheme {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Request {
    /// Path and query. The parsers let only visible ASCII pass.
    pub fn target(&self) -> &str {
        self.path.to_str().unwrap_or("/")
    }

    /// The path without query and fragment.
    pub fn url_path(&self) -> &str {
        let target = self.target();
        target.find(['?', '#']).and_then(|end| target.get(..end)).unwrap_or(target)
    }

    /// The query, without its `?`.
    pub fn query(&self) -> &str {
        let target = self.target();
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The host of the authority, without port.
    pub fn host(&self) -> &str {
        let host = host_of(self.authority.to_str().unwrap_or(""));
        // The root label says nothing that was not clear (RFC 3986 section 3.2.2).
        host.strip_suffix('.').unwrap_or(host)
    }
}

/// The host of an authority, without port.
pub fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((host, port)) if !port.ends_with(']') => host,
        Some(_) | None => authority,
    }
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct Response {
    /// `:status`
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
}

impl Response {
    /// A response without headers.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new() }
    }
}

/// Whether the response to a request has no body, whatever its headers say (RFC 9112 section 6.3).
pub fn is_bodiless(to: &Method, status: StatusCode) -> bool {
    to == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The headers that concern one connection and are never passed on (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [(Marks, HeaderName); 5] = [
    (Marks::CONNECTION, http::header::CONNECTION),
    (Marks::KEEP_ALIVE, HeaderName::from_static("keep-alive")),
    (Marks::PROXY_CONNECTION, HeaderName::from_static("proxy-connection")),
    (Marks::TRANSFER_ENCODING, http::header::TRANSFER_ENCODING),
    (Marks::UPGRADE, http::header::UPGRADE),
];

/// Removes the hop-by-hop headers, and every header that `Connection` nominates. `TE` survives as `trailers`. `marks`:
/// those of the headers.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, marks: Marks) {
    let nominates =
        |headers: &HeaderMap| !headers.get_all(http::header::CONNECTION).iter().all(is_keep_alive);
    if marks.has(Marks::CONNECTION) && nominates(headers) {
        let nominated: Vec<HeaderName> = headers
            .get_all(http::header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .collect();
        for name in nominated {
            // `TE` is nominated by rule (RFC 9110 section 10.1.4), and kept below.
            if name != http::header::TE {
                headers.remove(name);
            }
        }
    }
    for (mark, name) in &HOP_BY_HOP {
        if marks.has(*mark) {
            headers.remove(name);
        }
    }
    if marks.has(Marks::TE) {
        let trailers = headers.get_all(http::header::TE).iter().any(|value| has_token(value, "trailers"));
        headers.remove(http::header::TE);
        if trailers {
            headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Whether `Connection` says `keep-alive` and nothing else, as most do: that nominates nothing that would not go anyway.
pub fn is_keep_alive(connection: &HeaderValue) -> bool {
    connection.as_bytes().eq_ignore_ascii_case(b"keep-alive")
}

/// Whether a comma-separated list holds a token, parameters aside, in any case.
pub fn has_token(list: &HeaderValue, token: &str) -> bool {
    let is = |item: &str| item.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(token);
    list.to_str().is_ok_and(|list| list.split(',').any(is))
}

/// gRPC's status for an HTTP status (grpc's http-grpc-status-mapping).
pub fn grpc_status(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_and_those_that_connection_nominates_are_stripped() {
        let mut map = headers(&[
            ("connection", "close, X-Secret , te"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip;q=0.5, trailers"),
            ("accept", "*/*"),
        ]);
        let marks = Marks::of(&map);
        strip_hop_by_hop(&mut map, marks);
        assert_eq!(map, headers(&[("te", "trailers"), ("accept", "*/*")]));
    }

    #[test]
    fn the_host_of_an_authority_has_no_port() {
        for (authority, host) in [
            ("a.example:80", "a.example"),
            ("a.example", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }
}
