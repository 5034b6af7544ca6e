//! What was seen of a stream.

use std::collections::BTreeMap;

use http::HeaderMap;
use weir_abi::LogLevel;

/// What was seen of a stream, and of what its filters did meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The request that the upstream got.
    pub request: Option<SeenRequest>,
    /// The response that the client got.
    pub response: Option<SeenResponse>,
    /// Whether the stream was reset, or the connection closed, by a filter.
    pub closed: bool,
    /// The cluster that a filter chose.
    pub cluster: Option<String>,
    /// What the upstream got on a connection.
    pub upstream_gets: Vec<u8>,
    /// What the client got on a connection.
    pub client_gets: Vec<u8>,
    /// The calls that were made.
    pub calls: Vec<SeenCall>,
    /// Lines of the log, from level `info` on.
    pub log: Vec<Line>,
    /// The properties that were asked for, at the end of the stream.
    pub properties: BTreeMap<String, Option<Vec<u8>>>,
    /// Why the response is what it is.
    pub details: Option<String>,
    /// How the plugin failed, as often as it did.
    pub failures: Vec<String>,
    /// Calls that there was no answer for.
    pub unanswered: Vec<String>,
    /// Whether it never came to an end: somebody waited, and there was nothing to wait for.
    pub stuck: bool,
}

impl Seen {
    /// The status that the client got; `None` when it got no response.
    pub fn status(&self) -> Option<u16> {
        self.response.as_ref().map(|response| response.status)
    }

    /// A header of the response that the client got.
    pub fn header(&self, name: &str) -> Option<String> {
        text_of(&self.response.as_ref()?.headers, name)
    }

    /// A header of the request that the upstream got.
    pub fn upstream_header(&self, name: &str) -> Option<String> {
        text_of(&self.request.as_ref()?.headers, name)
    }

    /// The body that the client got.
    pub fn body(&self) -> String {
        let body = self.response.as_ref().map(|response| response.body.as_slice());
        String::from_utf8_lossy(body.unwrap_or_default()).into_owned()
    }
}

/// The first value of a header.
fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A request.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    /// `:method`
    pub method: String,
    /// `:authority`
    pub host: String,
    /// `:path`
    pub path: String,
    /// The other headers, without those of framing.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: HeaderMap,
}

/// A response.
#[derive(Debug, Clone)]
pub struct SeenResponse {
    /// `:status`
    pub status: u16,
    /// The headers, without those of framing.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: HeaderMap,
    /// Whether it comes from a filter or from Weir itself.
    pub local: bool,
}

/// A call that a plugin made.
#[derive(Debug, Clone)]
pub struct SeenCall {
    /// Where to.
    pub cluster: String,
    /// For a gRPC call: service and method.
    pub grpc: Option<String>,
    /// The request, with the messages of a gRPC call in the place of its body.
    pub request: SeenRequest,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its level.
    pub level: LogLevel,
    /// What it says.
    pub text: String,
}

impl Line {
    /// As cases have it: `info: text`.
    pub fn shown(&self) -> String {
        format!("{}: {}", level_word(self.level), self.text)
    }
}

/// The word for a level.
pub const fn level_word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Critical => "critical",
    }
}

impl SeenRequest {
    /// Of the head of a request.
    pub(super) fn of(request: &crate::http::message::Request) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            method: request.method.to_string(),
            host: text(&request.authority),
            path: text(&request.path),
            headers: without_framing(&request.headers),
            body: Vec::new(),
            trailers: HeaderMap::new(),
        }
    }
}

impl SeenResponse {
    /// Of the head of a response.
    pub(super) fn of(response: &crate::http::message::Response, local: bool) -> Self {
        Self {
            status: response.status.as_u16(),
            headers: without_framing(&response.headers),
            body: Vec::new(),
            trailers: HeaderMap::new(),
            local,
        }
    }
}

/// Framing is the codec's, and says nothing of a filter.
fn without_framing(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(http::header::CONTENT_LENGTH);
    headers.remove(http::header::TRANSFER_ENCODING);
    headers
}
