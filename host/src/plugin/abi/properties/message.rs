//! Node and metadata as the protobuf messages that Envoy has for them (`envoy.config.core.v3`), for guests that read
//! them whole. Only what Weir knows is written; fields that are empty are left out, as protobuf has it.

use serde_json::{Map, Value as Json};

use crate::config::metadata::{Locality, Metadata, Node};

/// `envoy.config.core.v3.Node`
pub fn node(node: &Node) -> Vec<u8> {
    let mut out = Vec::new();
    text(1, &node.id, &mut out);
    text(2, &node.cluster, &mut out);
    if !node.metadata.0.is_empty() {
        field(3, &fields(&node.metadata.0), &mut out);
    }
    let place = locality(&node.locality);
    if !place.is_empty() {
        field(4, &place, &mut out);
    }
    out
}

/// `envoy.config.core.v3.Locality`
pub fn locality(locality: &Locality) -> Vec<u8> {
    let mut out = Vec::new();
    text(1, &locality.region, &mut out);
    text(2, &locality.zone, &mut out);
    text(3, &locality.sub_zone, &mut out);
    out
}

/// `envoy.config.core.v3.Metadata`
pub fn metadata(metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, namespace) in metadata {
        entry(name, &fields(&namespace.0), &mut out);
    }
    out
}

/// `google.protobuf.Struct`
fn fields(fields: &Map<String, Json>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, json) in fields {
        entry(name, &value(json), &mut out);
    }
    out
}

/// `google.protobuf.Value`
fn value(json: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    match json {
        Json::Null => out.extend_from_slice(&[1 << 3, 0]),
        Json::Number(number) => {
            out.push((2 << 3) | FIXED_64);
            out.extend_from_slice(&number.as_f64().unwrap_or_default().to_le_bytes());
        }
        Json::String(text) => field(3, text.as_bytes(), &mut out),
        Json::Bool(yes) => out.extend_from_slice(&[4 << 3, u8::from(*yes)]),
        Json::Object(inner) => field(5, &fields(inner), &mut out),
        Json::Array(items) => {
            let mut list = Vec::new();
            items.iter().for_each(|item| field(1, &value(item), &mut list));
            field(6, &list, &mut out);
        }
    }
    out
}

const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;

/// An entry of a map that is field 1.
fn entry(key: &str, value: &[u8], out: &mut Vec<u8>) {
    let mut entry = Vec::new();
    text(1, key, &mut entry);
    field(2, value, &mut entry);
    field(1, &entry, out);
}

fn text(number: u8, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        field(number, text.as_bytes(), out);
    }
}

fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push((number << 3) | LENGTH_DELIMITED);
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_written_as_protobuf() {
        let json = serde_json::json!({ "ns": { "k": "v", "b": true } });
        let Json::Object(namespaces) = json else { panic!("an object") };
        let known = namespaces.into_iter().map(|(name, json)| {
            let Json::Object(fields) = json else { panic!("an object") };
            (name, crate::config::metadata::Struct(fields))
        });
        let written = metadata(&known.collect());
        // By hand, from the field numbers of the messages.
        let expected =
            b"\x0a\x19\x0a\x02ns\x12\x13\x0a\x08\x0a\x01k\x12\x03\x1a\x01v\x0a\x07\x0a\x01b\x12\x02\x20\x01";
        assert_eq!(written.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert!(metadata(&Metadata::new()).is_empty());
        assert_eq!(field_of(300).len(), 303);
    }

    fn field_of(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        field(1, &vec![0; len], &mut out);
        out
    }
}
