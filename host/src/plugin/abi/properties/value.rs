//! The value of a property, and how it is written for a guest.

use std::io::Write;
use std::net::SocketAddr;

use serde_json::{Map, Value as Json};
use smallvec::SmallVec;
use weir_abi::{Status, encode_pairs};

use crate::config::metadata::Metadata;
use crate::plugin::abi::headers::View;

/// A value as it is written. Most are short: those take no memory of their own.
pub type Out = SmallVec<[u8; 128]>;

/// The value of a property, where it lies.
pub enum Value<'a> {
    /// A text.
    Text(&'a [u8]),
    /// A text that was made for the occasion.
    Made(Vec<u8>),
    /// What a guest has set.
    Bytes(&'a [u8]),
    /// A number.
    Int(i64),
    /// A number that is never below 0.
    Uint(u64),
    /// Yes or no.
    Bool(bool),
    /// Nanoseconds: a duration, or since 1970.
    Nanos(u64),
    /// An address with its port.
    Address(SocketAddr),
    /// Headers or trailers.
    Headers(View<'a>),
    /// A part of somebody's metadata.
    Json(&'a Json),
    /// The same, known to be a mapping.
    Struct(&'a Map<String, Json>),
    /// All of somebody's metadata.
    Namespaces(&'a Metadata),
    /// A map that nothing is in.
    Nothing,
    /// A protobuf message.
    Message(Vec<u8>),
    /// The root of a group of attributes: its members have values, the group has none.
    Group,
}

impl<'a> Value<'a> {
    /// A text.
    #[expect(clippy::unnecessary_wraps, reason = "it ends arms that have other values too")]
    pub fn text(text: &'a str) -> Option<Self> {
        Some(Self::Text(text.as_bytes()))
    }

    /// Texts in order, as a map whose keys they are.
    pub fn list(items: &[Vec<u8>]) -> Self {
        Self::Made(map(items.iter().map(|item| (item.as_slice(), Vec::new())).collect()))
    }

    /// What stands further down in a value of metadata.
    pub fn within(json: &'a Json, path: &[&str]) -> Option<Self> {
        let mut json = json;
        for name in path {
            json = match json {
                Json::Object(fields) => fields.get(*name)?,
                Json::Array(items) => items.get(name.parse::<usize>().ok()?)?,
                Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return None,
            };
        }
        Some(Self::Json(json))
    }

    /// What stands in a mapping of metadata: `path` below it, or all of it.
    pub fn within_struct(fields: &'a Map<String, Json>, path: &[&str]) -> Option<Self> {
        match path {
            [] => Some(Self::Struct(fields)),
            [name, rest @ ..] => Self::within(fields.get(*name)?, rest),
        }
    }

    /// The value as guests get it: numbers in 8 bytes, little-endian; booleans in one byte; times and durations as
    /// nanoseconds; maps in the serialised form of header maps, lists as maps whose keys are the items and whose values
    /// are empty; everything else the bytes themselves.
    ///
    /// # Errors
    /// [`Status::SerializationFailure`] for what has no such form.
    pub fn bytes(self) -> Result<Out, Status> {
        Ok(match self {
            Self::Text(bytes) | Self::Bytes(bytes) => Out::from_slice(bytes),
            Self::Made(bytes) | Self::Message(bytes) => Out::from_vec(bytes),
            Self::Int(number) => Out::from_slice(&number.to_le_bytes()),
            Self::Uint(number) | Self::Nanos(number) => Out::from_slice(&number.to_le_bytes()),
            Self::Bool(yes) => Out::from_slice(&[u8::from(yes)]),
            Self::Address(address) => {
                // The longest, of IPv6 with a scope, has 58 bytes.
                let mut room = [0; 64];
                let mut rest = room.as_mut_slice();
                write!(rest, "{address}").map_err(|_| Status::SerializationFailure)?;
                let left = rest.len();
                Out::from_slice(room.get(..room.len() - left).unwrap_or_default())
            }
            Self::Headers(view) => pairs(view.encode()),
            Self::Json(value) => Out::from_vec(json(value)?),
            Self::Struct(fields) => Out::from_vec(object(fields)?),
            Self::Namespaces(metadata) => {
                let written = metadata.iter().map(|(name, fields)| Ok((name.as_bytes(), object(&fields.0)?)));
                Out::from_vec(map(written.collect::<Result<_, Status>>()?))
            }
            Self::Nothing => pairs(Vec::new()),
            Self::Group => return Err(Status::SerializationFailure),
        })
    }
}

/// A value of metadata as [`Value::bytes`] writes it. Its numbers are doubles, as protobuf's `Value` has them.
///
/// # Errors
/// [`Status::SerializationFailure`] for null.
fn json(value: &Json) -> Result<Vec<u8>, Status> {
    Ok(match value {
        Json::Null => return Err(Status::SerializationFailure),
        Json::Bool(yes) => vec![u8::from(*yes)],
        Json::Number(number) => number.as_f64().unwrap_or_default().to_le_bytes().to_vec(),
        Json::String(text) => text.as_bytes().to_vec(),
        Json::Array(items) => {
            let items: Vec<Vec<u8>> = items.iter().map(json).collect::<Result<_, Status>>()?;
            map(items.iter().map(|item| (item.as_slice(), Vec::new())).collect())
        }
        Json::Object(fields) => object(fields)?,
    })
}

fn object(fields: &Map<String, Json>) -> Result<Vec<u8>, Status> {
    let written = fields.iter().map(|(name, value)| Ok((name.as_bytes(), json(value)?)));
    Ok(map(written.collect::<Result<_, Status>>()?))
}

fn map(written: Vec<(&[u8], Vec<u8>)>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_pairs(|| written.iter().map(|(name, value)| (*name, value.as_slice())), &mut out);
    if out.is_empty() { vec![0; 4] } else { out }
}

/// An empty map is a count of 0 here, as in Envoy: no bytes would be an empty text.
fn pairs(encoded: Vec<u8>) -> Out {
    if encoded.is_empty() { Out::from_slice(&[0; 4]) } else { Out::from_vec(encoded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_written_by_its_kind() {
        let value =
            serde_json::json!({ "t": "x", "n": 1.5, "b": true, "l": ["a", "b"], "m": {}, "no": null });
        let at =
            |path: &[&str]| Value::within(&value, path).map(|value| value.bytes().map(|out| out.to_vec()));
        assert_eq!(at(&["t"]), Some(Ok(b"x".to_vec())));
        assert_eq!(at(&["n"]), Some(Ok(1.5_f64.to_le_bytes().to_vec())));
        assert_eq!(at(&["b"]), Some(Ok(vec![1])));
        assert_eq!(at(&["l", "1"]), Some(Ok(b"b".to_vec())));
        let list = [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a', 0, 0, b'b', 0, 0];
        assert_eq!(at(&["l"]), Some(Ok(list.to_vec())));
        assert_eq!(at(&["m"]), Some(Ok(vec![0; 4])));
        assert_eq!(at(&["no"]), Some(Err(Status::SerializationFailure)));
        for missing in [&["x"][..], &["l", "2"], &["l", "-1"], &["t", "x"]] {
            assert_eq!(at(missing), None, "{missing:?}");
        }
    }
}
