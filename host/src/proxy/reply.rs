//! From a failure to the answer that the client sees. This is the only such map.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::http::h1::{BodyError, HeadError};
use crate::http::message::{Request, Response, grpc_status};
use crate::plugin::chain::{Half, Stop};
use crate::plugin::stream::LocalReply;
use crate::upstream::connection::ConnectError;

/// Why an exchange is not answered by its upstream.
#[derive(Debug)]
pub enum Failure {
    /// A filter, or the route, answers.
    Reply(LocalReply),
    /// A filter ends it without an answer.
    Reset(Arc<str>),
    /// No route matches.
    NoRoute,
    /// There is no connection to the upstream.
    Connect(ConnectError),
    /// The upstream closed the connection before it answered.
    UpstreamClosed(String),
    /// The upstream reset the connection, or the stream, before it answered.
    UpstreamReset(String),
    /// The upstream sent interim responses without end, or a change of protocol that nobody asked for.
    UpstreamInterim,
    /// The upstream's answer is refused.
    UpstreamHead(HeadError),
    /// The upstream's answer broke off, or contradicts itself.
    UpstreamBody(String),
    /// The upstream did not answer in time.
    Timeout,
    /// Nothing came from either side for too long.
    Idle,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The client sent the request's body, or took that of the answer, too slowly.
    TooSlow(Half),
    /// The process has too little of something left.
    Overload,
    /// The client's body is malformed.
    RequestBody(BodyError),
    /// The client is gone.
    ClientGone,
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Reply(reply) => Self::Reply(reply),
            Stop::Reset(details) => Self::Reset(details),
        }
    }
}

impl Failure {
    /// Why, in the words of logs and metrics.
    pub fn details(&self) -> Arc<str> {
        match self {
            Self::Reply(reply) => return Arc::clone(&reply.details),
            Self::Reset(details) => return Arc::clone(details),
            Self::NoRoute => "no_route",
            Self::Connect(ConnectError::NoEndpoints(_)) => "no_endpoints",
            Self::Connect(ConnectError::Timeout { .. }) => "connect_timeout",
            Self::Connect(ConnectError::Failed { .. }) => "connect_failure",
            Self::Connect(ConnectError::Private { .. }) => "private_address",
            Self::UpstreamClosed(_) => "upstream_closed",
            Self::UpstreamReset(_) => "upstream_reset",
            Self::UpstreamInterim => "upstream_interim_responses",
            Self::UpstreamHead(HeadError::TooLarge | HeadError::TooManyFields) => "upstream_head_too_large",
            Self::UpstreamHead(_) => "upstream_malformed_head",
            Self::UpstreamBody(_) => "upstream_body_cut",
            Self::Timeout => "upstream_timeout",
            Self::Idle => "stream_idle_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::TooSlow(Half::Received) => "request_body_too_slow",
            Self::TooSlow(Half::Answered) => "response_body_too_slow",
            Self::Overload => "overload",
            Self::RequestBody(_) => "malformed_request_body",
            Self::ClientGone => "client_gone",
        }
        .into()
    }

    /// The bits of Envoy's response flags (`StreamInfo::CoreResponseFlag`) that come nearest.
    pub fn flags(&self) -> u64 {
        let bit = match self {
            Self::Reply(_) | Self::RequestTimeout | Self::TooSlow(_) => return 0,
            Self::Connect(error) => return connect_flags(error),
            Self::Timeout => 2,
            Self::Reset(_) => 3,
            Self::UpstreamClosed(_) | Self::UpstreamReset(_) | Self::UpstreamBody(_) => 6,
            Self::NoRoute => 8,
            Self::ClientGone => 14,
            Self::Idle => 16,
            Self::RequestBody(_) => 18,
            Self::UpstreamHead(_) | Self::UpstreamInterim => 23,
            Self::Overload => 25,
        };
        1 << bit
    }

    /// The endpoint that there is no connection to, when that is what failed.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        let Self::Connect(error) = self else { return None };
        error.endpoint()
    }

    /// Whether the endpoint is to blame that was connected to.
    pub fn is_upstreams(&self) -> bool {
        matches!(
            self,
            Self::UpstreamClosed(_)
                | Self::UpstreamReset(_)
                | Self::UpstreamInterim
                | Self::UpstreamHead(_)
                | Self::UpstreamBody(_)
                | Self::Timeout
        )
    }

    /// Why there is no connection to the upstream, when that is so.
    pub fn transport(&self) -> Option<Arc<str>> {
        if let Self::Connect(error) = self { error.transport() } else { None }
    }

    /// What the client is told; `None` when it is told nothing.
    pub fn reply(self) -> Option<LocalReply> {
        let details = self.details();
        let (status, text) = match self {
            Self::Reply(reply) => return Some(reply),
            Self::Reset(_) | Self::ClientGone => return None,
            Self::NoRoute => (StatusCode::NOT_FOUND, "no route matches this request"),
            Self::Connect(ConnectError::NoEndpoints(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "the upstream has no endpoints")
            }
            Self::Connect(ConnectError::Timeout { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "the upstream could not be connected to in time")
            }
            Self::Connect(ConnectError::Failed { .. } | ConnectError::Private { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "the upstream could not be connected to")
            }
            Self::UpstreamClosed(_) => {
                (StatusCode::BAD_GATEWAY, "the upstream closed the connection without an answer")
            }
            Self::UpstreamReset(_) => {
                (StatusCode::BAD_GATEWAY, "the upstream reset the connection without an answer")
            }
            Self::UpstreamInterim => {
                (StatusCode::BAD_GATEWAY, "the upstream sent interim responses without an answer")
            }
            Self::UpstreamHead(_) => (StatusCode::BAD_GATEWAY, "the upstream sent a malformed answer"),
            Self::UpstreamBody(_) => (StatusCode::BAD_GATEWAY, "the upstream's answer broke off"),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "the upstream did not answer in time"),
            Self::Idle => (StatusCode::GATEWAY_TIMEOUT, "nothing came for too long"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time"),
            Self::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly"),
            Self::Overload => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::RequestBody(_) => (StatusCode::BAD_REQUEST, "the request's body is malformed"),
        };
        Some(plain(status, text, details))
    }
}

/// [`Failure::flags`] of a connection that could not be made.
pub fn connect_flags(error: &ConnectError) -> u64 {
    match error {
        ConnectError::NoEndpoints(_) => 1 << 1,
        ConnectError::Timeout { .. } | ConnectError::Failed { .. } | ConnectError::Private { .. } => 1 << 5,
    }
}

/// What a client is told whose request cannot even be read.
pub fn refusal(error: HeadError) -> LocalReply {
    plain(error.status(), &error.to_string(), error.as_str().into())
}

/// A reply with a line of text.
pub fn plain(status: StatusCode, text: &str, details: Arc<str>) -> LocalReply {
    LocalReply {
        status,
        headers: Vec::new(),
        body: Bytes::from(format!("{text}\n")),
        grpc_status: None,
        details,
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const WEIR: HeaderValue = HeaderValue::from_static("weir");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// A reply as a response, and its body. A caller that speaks gRPC is answered in gRPC: 200, the status and the text in
/// headers, no body.
pub fn render(reply: LocalReply, request: Option<&Request>) -> (Response, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(header::SERVER, WEIR);
    headers.insert(header::DATE, date());
    if request.is_some_and(is_grpc) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(
            GRPC_STATUS,
            reply.grpc_status.unwrap_or_else(|| grpc_status(reply.status.as_u16())).into(),
        );
        if let Ok(message) = HeaderValue::from_bytes(&percent_encoded(&reply.body)) {
            headers.insert(GRPC_MESSAGE, message);
        }
        add(&mut headers, reply.headers);
        return (Response { status: StatusCode::OK, headers }, Bytes::new());
    }
    if !reply.body.is_empty() {
        headers.insert(header::CONTENT_TYPE, TEXT);
    }
    add(&mut headers, reply.headers);
    if request.is_some_and(|request| request.method == Method::HEAD) {
        headers.insert(header::CONTENT_LENGTH, reply.body.len().into());
        return (Response { status: reply.status, headers }, Bytes::new());
    }
    (Response { status: reply.status, headers }, reply.body)
}

/// Whether a caller speaks gRPC.
pub fn is_grpc(request: &Request) -> bool {
    let kind = request.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.starts_with(b"application/grpc")
}

/// Adds the headers of a reply to those that every reply has.
fn add(headers: &mut HeaderMap, more: Vec<(HeaderName, HeaderValue)>) {
    for (name, value) in more {
        match name {
            header::CONTENT_TYPE | header::SERVER | header::DATE => {
                headers.insert(name, value);
            }
            // Framing is the codec's.
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION => {}
            name => {
                headers.append(name, value);
            }
        }
    }
}

/// The text of `grpc-message`: visible ASCII but `%`, everything else percent-encoded.
fn percent_encoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text.trim_ascii_end() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// The date, as every origin sends it. It changes once a second.
fn date() -> HeaderValue {
    use std::cell::RefCell;
    use std::time::{SystemTime, UNIX_EPOCH};

    thread_local! {
        static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    LAST.with_borrow_mut(|last| {
        if last.0 != second {
            let text = httpdate::fmt_http_date(now);
            *last = (second, HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")));
        }
        last.1.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each, but for those whose words are a filter's.
    fn failures() -> Vec<Failure> {
        use crate::snapshot::FAILURES;
        let connect = |error| Failure::Connect(error);
        let (cluster, address): (Arc<str>, SocketAddr) = ("c".into(), ([127, 0, 0, 1], 1).into());
        let name = || Arc::clone(&cluster);
        let error = std::io::Error::other("x");
        let all = vec![
            Failure::NoRoute,
            connect(ConnectError::NoEndpoints(name())),
            connect(ConnectError::Timeout { cluster: name(), address }),
            connect(ConnectError::Failed { cluster: name(), address, error }),
            connect(ConnectError::Private { cluster: name(), address, kind: "x" }),
            Failure::UpstreamClosed(String::new()),
            Failure::UpstreamReset(String::new()),
            Failure::UpstreamInterim,
            Failure::UpstreamHead(HeadError::TooLarge),
            Failure::UpstreamHead(HeadError::Nul),
            Failure::UpstreamBody(String::new()),
            Failure::Timeout,
            Failure::Idle,
            Failure::RequestTimeout,
            Failure::TooSlow(Half::Received),
            Failure::TooSlow(Half::Answered),
            Failure::Overload,
            Failure::RequestBody(BodyError::Chunk),
            Failure::ClientGone,
        ];
        assert_eq!(all.len(), FAILURES.len(), "one of each");
        all
    }

    #[test]
    fn every_failure_is_counted_by_a_word_of_its_own() {
        let mut words: Vec<_> = failures().iter().map(Failure::details).collect();
        assert!(words.iter().all(|word| crate::snapshot::FAILURES.contains(&&**word)), "{words:?}");
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), crate::snapshot::FAILURES.len());
    }

    #[test]
    fn grpc_callers_are_answered_in_grpc() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        let request = Request {
            method: Method::POST,
            scheme: crate::http::message::Scheme::Http,
            authority: HeaderValue::from_static("a"),
            path: HeaderValue::from_static("/s/m"),
            version: crate::http::message::Version::Http2,
            headers,
        };
        let mut reply = plain(StatusCode::FORBIDDEN, "no 100%", "denied".into());
        reply.headers = vec![(header::CONTENT_LENGTH, "8".parse().expect("a value"))];
        let (response, body) = render(reply, Some(&request));
        assert_eq!(response.status, 200);
        assert_eq!(response.headers["grpc-status"], "7");
        assert_eq!(response.headers["grpc-message"], "no 100%25");
        // A length that the filter meant for a body that is not sent must not be promised.
        assert!(body.is_empty() && !response.headers.contains_key("content-length"));
    }
}
