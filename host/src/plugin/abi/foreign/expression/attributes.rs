//! The attributes of a stream as the variables of an expression. Only what is asked for is looked up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cel::Value;
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::objects::Key;
use serde_json::{Map, Value as Json};

use crate::config::metadata::Metadata;
use crate::plugin::abi::properties::{self, Value as Property};
use crate::plugin::vm::Vm;

/// The attributes of the context that host functions act on.
pub struct Attributes<'a> {
    vm: &'a Vm,
    /// The bytes that may still be looked at.
    left: AtomicUsize,
}

/// The bytes that one evaluation may look at: every part of an expression may copy them.
const MOST_SEEN: usize = 128 << 10;

/// The members of groups. A group as a whole is asked for by `has()`, and for members that there are not.
const GROUPS: [(&str, &[&str]); 6] = [
    (
        "request",
        &[
            "path",
            "url_path",
            "query",
            "host",
            "scheme",
            "method",
            "protocol",
            "id",
            "referer",
            "useragent",
            "time",
            "duration",
            "size",
            "total_size",
            "headers_bytes",
            "headers",
        ],
    ),
    (
        "response",
        &[
            "code",
            "code_details",
            "flags",
            "size",
            "total_size",
            "headers_bytes",
            "grpc_status",
            "backend_latency",
            "headers",
            "trailers",
        ],
    ),
    (
        "connection",
        &[
            "id",
            "mtls",
            "requested_server_name",
            "termination_details",
            "tls_version",
            "subject_peer_certificate",
            "subject_local_certificate",
            "uri_san_peer_certificate",
            "uri_san_local_certificate",
            "dns_san_peer_certificate",
            "dns_san_local_certificate",
            "sha256_peer_certificate_digest",
            "peer_certificate",
        ],
    ),
    ("source", &["address", "port"]),
    ("destination", &["address", "port"]),
    (
        "upstream",
        &[
            "address",
            "port",
            "local_address",
            "num_endpoints",
            "locality",
            "transport_failure_reason",
            "request_attempt_count",
            "cx_pool_ready_duration",
            "tls_version",
            "subject_peer_certificate",
            "subject_local_certificate",
            "uri_san_peer_certificate",
            "uri_san_local_certificate",
            "dns_san_peer_certificate",
            "dns_san_local_certificate",
            "sha256_peer_certificate_digest",
            "peer_certificate",
        ],
    ),
];

impl<'a> Attributes<'a> {
    pub fn new(vm: &'a Vm) -> Self {
        Self { vm, left: AtomicUsize::new(MOST_SEEN) }
    }

    /// The value of `a.b.c`.
    fn look_up(&self, name: &str) -> Option<Value> {
        let path = name.replace('.', "\0");
        properties::find(self.vm, path.as_bytes(), |property| self.value(name, property)).flatten()
    }

    fn value(&self, name: &str, property: Property<'_>) -> Option<Value> {
        Some(match property {
            Property::Text(bytes) => self.text(bytes)?,
            Property::Made(bytes) => self.text(&bytes)?,
            Property::Bytes(bytes) if self.is_text(name.as_bytes()) => self.text(bytes)?,
            Property::Bytes(bytes) => {
                self.seen(bytes.len())?;
                Value::Bytes(Arc::new(bytes.to_vec()))
            }
            Property::Int(number) => Value::Int(number),
            Property::Uint(number) => Value::UInt(number),
            Property::Bool(yes) => Value::Bool(yes),
            Property::Nanos(number) => Value::Int(i64::try_from(number).ok()?),
            Property::Address(address) => Value::String(Arc::new(address.to_string())),
            Property::Headers(view) => {
                let mut headers: HashMap<String, Vec<u8>> = HashMap::new();
                for (name, value) in view.iter() {
                    self.seen(name.len() + value.len())?;
                    let known = headers.entry(String::from_utf8_lossy(name).into_owned()).or_default();
                    if !known.is_empty() {
                        known.push(b',');
                    }
                    known.extend_from_slice(value);
                }
                map(headers.into_iter().map(|(name, value)| Some((name, text(&value)))))?
            }
            Property::Json(json) => self.json(json)?,
            Property::Struct(fields) => self.object(fields)?,
            Property::Namespaces(metadata) => self.namespaces(metadata)?,
            Property::Nothing => map(std::iter::empty())?,
            // Whole messages have no fields here.
            Property::Message(_) => return None,
            Property::Group => return self.group(name),
        })
    }

    /// A group as a map of what it has.
    fn group(&self, name: &str) -> Option<Value> {
        if name == "filter_state" {
            let stream = self.vm.stream().ok()?.stream.borrow();
            let entry = |(key, value): (&[u8], &bytes::Bytes)| {
                self.seen(key.len() + value.len())?;
                let known = String::from_utf8_lossy(key).into_owned();
                let is_text = key.strip_prefix(b"wasm.").is_some_and(|own| self.is_text(own));
                let value = if is_text { text(value) } else { Value::Bytes(Arc::new(value.to_vec())) };
                Some((known, value))
            };
            return map(stream.info.state.iter().map(entry));
        }
        let (_, members) = GROUPS.iter().find(|(group, _)| *group == name)?;
        let member = |member: &&str| Some((member.to_string(), self.look_up(&format!("{name}.{member}"))?));
        map(members.iter().filter_map(member).map(Some))
    }

    fn is_text(&self, own: &[u8]) -> bool {
        self.vm.root().is_ok_and(|root| root.kept.is_text(own))
    }

    fn text(&self, bytes: &[u8]) -> Option<Value> {
        self.seen(bytes.len())?;
        Some(text(bytes))
    }

    fn json(&self, json: &Json) -> Option<Value> {
        Some(match json {
            Json::Null => Value::Null,
            Json::Bool(yes) => Value::Bool(*yes),
            Json::Number(number) => Value::Float(number.as_f64()?),
            Json::String(text) => self.text(text.as_bytes())?,
            Json::Array(items) => {
                self.seen(items.len())?;
                let items: Option<Vec<Value>> = items.iter().map(|item| self.json(item)).collect();
                Value::List(Arc::new(items?))
            }
            Json::Object(fields) => self.object(fields)?,
        })
    }

    fn object(&self, fields: &Map<String, Json>) -> Option<Value> {
        map(fields.iter().map(|(name, json)| {
            self.seen(name.len())?;
            Some((name.clone(), self.json(json)?))
        }))
    }

    fn namespaces(&self, metadata: &Metadata) -> Option<Value> {
        map(metadata.iter().map(|(name, fields)| Some((name.clone(), self.object(&fields.0)?))))
    }

    /// Counts what was looked at; `None` when that is too much.
    fn seen(&self, bytes: usize) -> Option<()> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(bytes)?;
        self.left.store(left, Ordering::Relaxed);
        Some(())
    }
}

impl VariableResolver for Attributes<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        self.look_up(variable)?.try_into().ok().map(CowVal::Owned)
    }
}

/// Texts are UTF-8 in expressions; what is not is replaced.
fn text(bytes: &[u8]) -> Value {
    Value::String(Arc::new(String::from_utf8_lossy(bytes).into_owned()))
}

fn map(entries: impl Iterator<Item = Option<(String, Value)>>) -> Option<Value> {
    let entry =
        |entry: Option<(String, Value)>| entry.map(|(name, value)| (Key::String(Arc::new(name)), value));
    let map: Option<HashMap<Key, Value>> = entries.map(entry).collect();
    Some(Value::Map(cel::objects::Map { map: Arc::new(map?) }))
}
