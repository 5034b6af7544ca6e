//! Headers and bodies, as they stand in cases.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};

use crate::config::problem::Mark;
use crate::config::section::{Context, Definitions, Read, text};
use crate::config::value::Size;
use crate::config::yaml::{Node, Value};

/// Headers by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Headers(pub HeaderMap);

impl Read for Headers {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let mut map = HeaderMap::new();
        let Value::Mapping(entries) = &node.value else {
            if node.is_null() || matches!(&node.value, Value::Scalar { text, .. } if text.is_empty()) {
                return Some(Self(map));
            }
            cx.problem(node.at, format!("a mapping of headers is expected here, not {}", node.kind()));
            return None;
        };
        for entry in entries {
            let Some(name) = header_name(&entry.key, entry.key_at, cx) else { continue };
            let values = match &entry.value.value {
                Value::Sequence(items) => items.as_slice(),
                Value::Scalar { .. } | Value::Mapping(_) => std::slice::from_ref(&entry.value),
            };
            for value in values {
                cx.below(&entry.key, |cx| {
                    let Some(text) = text(value, cx) else { return };
                    match HeaderValue::from_bytes(text.as_bytes()) {
                        Ok(value) => drop(map.append(name.clone(), value)),
                        Err(_) => cx.problem(value.at, "a header cannot have control characters in it"),
                    }
                });
            }
        }
        Some(Self(map))
    }

    fn schema(_: &mut Definitions) -> Json {
        let text = json!({ "type": ["string", "number", "boolean"] });
        let several = json!({ "type": "array", "items": text });
        json!({ "type": "object", "additionalProperties": { "anyOf": [text, several] } })
    }

    fn to_json(&self) -> Json {
        let values = |name: &HeaderName| self.0.get_all(name).iter().map(text_of).collect::<Vec<_>>();
        self.0.keys().map(|name| (name.to_string(), json!(values(name)))).collect()
    }
}

/// The name of a header, as it stands in a file of cases.
pub fn header_name(text: &str, at: Mark, cx: &mut Context<'_>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        let cure = if text.starts_with(':') {
            "; `method`, `host`, `path` and `status` stand beside `headers`"
        } else {
            ""
        };
        cx.problem_in(text, at, format!("`{text}` is not the name of a header{cure}"));
    }
    name
}

fn text_of(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Bytes, in one piece or several: a text, `{ json: … }`, `{ base64: … }`, `{ file: … }`, `{ size: … }` (so many `x`), or
/// a list of those.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Body(pub Vec<Bytes>);

impl Body {
    /// All of it.
    pub fn whole(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [piece] => piece.clone(),
            pieces => pieces.concat().into(),
        }
    }

    fn piece(node: &Node, cx: &mut Context<'_>) -> Option<Bytes> {
        let Value::Mapping(entries) = &node.value else {
            return text(node, cx).map(|text| Bytes::copy_from_slice(text.as_bytes()));
        };
        let [entry] = entries.as_slice() else {
            cx.problem(node.at, "one of `json`, `base64`, `file` and `size` is expected here");
            return None;
        };
        let value = &entry.value;
        cx.below(&entry.key, |cx| match entry.key.as_str() {
            "json" => Some(value.to_json().to_string().into()),
            "base64" => {
                let decoded = BASE64.decode(text(value, cx)?.as_bytes());
                decoded
                    .map(Bytes::from)
                    .map_err(|error| cx.problem(value.at, format!("not base64: {error}")))
                    .ok()
            }
            "file" => {
                let name = text(value, cx)?;
                let path: PathBuf = cx.resolve(name);
                let read = std::fs::read(&path).map(Bytes::from);
                read.map_err(|error| {
                    cx.problem(value.at, format!("{} cannot be read: {error}", path.display()))
                })
                .ok()
            }
            "size" => Size::read(value, cx).map(|size| vec![b'x'; size.0].into()),
            other => {
                cx.problem(
                    entry.key_at,
                    format!("`{other}` is not possible here; known: json, base64, file, size"),
                );
                None
            }
        })
    }
}

impl Read for Body {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Sequence(items) => {
                let read = |(at, item)| cx.below(&format!("[{at}]"), |cx| Self::piece(item, cx));
                Some(Self(items.iter().enumerate().filter_map(read).collect()))
            }
            Value::Scalar { text, .. } if text.is_empty() || node.is_null() => Some(Self::default()),
            Value::Scalar { .. } | Value::Mapping(_) => Self::piece(node, cx).map(|piece| Self(vec![piece])),
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        let text = json!({ "type": ["string", "number", "boolean"] });
        let forms = json!({
            "type": "object",
            "properties": { "json": {}, "base64": { "type": "string" }, "file": { "type": "string" }, "size": text },
            "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
        });
        let piece = json!({ "anyOf": [text, forms] });
        json!({ "anyOf": [text, forms, { "type": "array", "items": piece }] })
    }

    fn to_json(&self) -> Json {
        String::from_utf8_lossy(&self.whole()).into_owned().into()
    }
}

/// Values by key, as text.
pub type Texts = BTreeMap<String, Body>;
