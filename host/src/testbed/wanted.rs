//! What is expected of a stream.

use std::collections::BTreeMap;

use http::HeaderName;
use regex::bytes::Regex;
use serde_json::{Value as Json, json};

use crate::config::section::{Context, Definitions, Read, section, text};
use crate::config::value::Spanned;
use crate::config::yaml::{Node, Value};
use crate::testbed::message::{Body, header_name};

section! {
    /// What is expected of a stream. What is not named is not looked at.
    pub struct Expect {
        /// The request that the upstream gets.
        request: Option<WantedRequest>,
        /// Whether it gets one at all.
        forwarded: Option<Spanned<bool>>,
        /// The response that the client gets.
        response: Option<WantedResponse>,
        /// Whether the stream is reset, or the connection closed, by a filter.
        closed: Option<Spanned<bool>>,
        /// The cluster that a filter chose.
        cluster: Option<Spanned<Wanted>>,
        /// The bytes that the upstream gets on a connection.
        upstream_gets: Option<Spanned<Wanted>>,
        /// The bytes that the client gets on a connection.
        client_gets: Option<Spanned<Wanted>>,
        /// The calls that were made, all of them and in this order.
        calls: Option<Spanned<Vec<WantedCall>>>,
        /// Lines of the log, in this order and perhaps with others between them, as in `info: text`. None at all: `[]`.
        log: Option<Spanned<Vec<Spanned<Wanted>>>>,
        /// Properties at the end of the stream, by path, as in `request.path`.
        properties: BTreeMap<String, Spanned<Wanted>>,
        /// Shared data after it.
        shared_data: BTreeMap<String, Spanned<Wanted>>,
        /// Metrics of the plugin's own after it, by the name that it gave them.
        metrics: BTreeMap<String, Spanned<Wanted>>,
        /// Why the response is what it is, as the access log has it.
        details: Option<Spanned<Wanted>>,
        /// That the plugin fails, and how.
        failure: Option<Spanned<Wanted>>,
    }
}

section! {
    /// What is expected of the request that the upstream gets.
    pub struct WantedRequest {
        /// The method.
        method: Option<Spanned<Wanted>>,
        /// `Host`, or `:authority`.
        host: Option<Spanned<Wanted>>,
        /// Path and query.
        path: Option<Spanned<Wanted>>,
        /// Headers; `null` for one that is not to be there.
        headers: WantedHeaders,
        /// The body.
        body: Option<Spanned<Wanted>>,
        /// Trailers.
        trailers: WantedHeaders,
    }
}

section! {
    /// What is expected of the response that the client gets.
    pub struct WantedResponse {
        /// The status.
        status: Option<Spanned<Wanted>>,
        /// Headers; `null` for one that is not to be there.
        headers: WantedHeaders,
        /// The body.
        body: Option<Spanned<Wanted>>,
        /// Trailers.
        trailers: WantedHeaders,
    }
}

section! {
    /// A call that is expected.
    pub struct WantedCall {
        /// The cluster that is called.
        cluster: Option<Spanned<Wanted>>,
        /// For a gRPC call: service and method, as in `pkg.Service/Method`.
        grpc: Option<Spanned<Wanted>>,
        /// The method.
        method: Option<Spanned<Wanted>>,
        /// `:authority`.
        host: Option<Spanned<Wanted>>,
        /// Path and query.
        path: Option<Spanned<Wanted>>,
        /// Headers; `null` for one that is not to be there.
        headers: WantedHeaders,
        /// The body, or the messages one after the other.
        body: Option<Spanned<Wanted>>,
    }
}

/// What some bytes are to be: a text, `{ contains: TEXT }`, `{ matches: REGEX }`, `{ json: … }`, or what a body can be.
/// `null`: they are not to be there.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Exactly these.
    Is(Vec<u8>),
    /// With this in it.
    Contains(String),
    /// Such that a regular expression finds something.
    Matches(Regex),
    /// JSON of this value.
    Json(Json),
    /// Not there.
    Absent,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

impl Wanted {
    /// Whether it is what is there.
    pub fn fits(&self, there: Option<&[u8]>) -> bool {
        match (self, there) {
            (Self::Absent, None) => true,
            (Self::Is(wanted), Some(there)) => wanted == there,
            (Self::Contains(part), Some(there)) => String::from_utf8_lossy(there).contains(part.as_str()),
            (Self::Matches(regex), Some(there)) => regex.is_match(there),
            (Self::Json(wanted), Some(there)) => {
                serde_json::from_slice::<Json>(there).is_ok_and(|there| there == *wanted)
            }
            (Self::Absent, Some(_)) | (_, None) => false,
        }
    }

    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Self::Is(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Contains(part) => format!("(with this in it) {part}"),
            Self::Matches(regex) => format!("(matching) {regex}"),
            Self::Json(json) => format!("(JSON) {json:#}"),
            Self::Absent => "(none)".to_owned(),
        }
    }
}

impl Read for Wanted {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        if node.is_null() {
            return Some(Self::Absent);
        }
        let Value::Mapping(entries) = &node.value else {
            return Body::read(node, cx).map(|body| Self::Is(body.whole().to_vec()));
        };
        let [entry] = entries.as_slice() else {
            cx.problem(
                node.at,
                "one of `contains`, `matches`, `json`, `base64`, `file` and `size` is expected here",
            );
            return None;
        };
        let value = &entry.value;
        match entry.key.as_str() {
            "contains" => cx.below("contains", |cx| Some(Self::Contains(text(value, cx)?.to_owned()))),
            "matches" => cx
                .below("matches", |cx| {
                    let regex = Regex::new(text(value, cx)?);
                    regex
                        .map_err(|error| cx.problem(value.at, format!("not a regular expression: {error}")))
                        .ok()
                })
                .map(Self::Matches),
            "json" => Some(Self::Json(value.to_json())),
            _ => Body::read(node, cx).map(|body| Self::Is(body.whole().to_vec())),
        }
    }

    fn schema(definitions: &mut Definitions) -> Json {
        let body = Body::schema(definitions);
        let form = |name: &str| json!({ "type": "object", "properties": { name: { "type": "string" } }, "required": [name] });
        json!({ "anyOf": [{ "type": "null" }, form("contains"), form("matches"), body] })
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Is(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
            Self::Contains(part) => json!({ "contains": part }),
            Self::Matches(regex) => json!({ "matches": regex.as_str() }),
            Self::Json(value) => json!({ "json": value }),
            Self::Absent => Json::Null,
        }
    }

    fn takes_null() -> bool {
        true
    }
}

/// What headers are to be: for each name its values, or none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WantedHeaders(pub Vec<(HeaderName, Spanned<Vec<Wanted>>)>);

impl Read for WantedHeaders {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            cx.problem(node.at, format!("a mapping of headers is expected here, not {}", node.kind()));
            return None;
        };
        let mut wanted = Vec::new();
        for entry in entries {
            let Some(name) = header_name(&entry.key, entry.key_at, cx) else { continue };
            let values = cx.below(&entry.key, |cx| {
                let values = match &entry.value.value {
                    Value::Sequence(items) => {
                        items.iter().filter_map(|item| Wanted::read(item, cx)).collect()
                    }
                    Value::Scalar { .. } if entry.value.is_null() => Vec::new(),
                    Value::Scalar { .. } | Value::Mapping(_) => {
                        Wanted::read(&entry.value, cx).into_iter().collect()
                    }
                };
                Spanned { value: values, place: cx.place(entry.value.at) }
            });
            wanted.push((name, values));
        }
        Some(Self(wanted))
    }

    fn schema(definitions: &mut Definitions) -> Json {
        let one = Wanted::schema(definitions);
        let several = json!({ "type": "array", "items": one });
        json!({ "type": "object", "additionalProperties": { "anyOf": [one, several] } })
    }

    fn to_json(&self) -> Json {
        self.0.iter().map(|(name, values)| (name.to_string(), values.value.to_json())).collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}
